#!/usr/bin/env python3
"""Checks and runs compute kernels in the Metal Shading Language on a Linux machine; see README.md.

    mslhost.py check FILE [KERNEL]   everything but running
    mslhost.py serve                 answers a JSON request a line; see serve()
"""
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile

import rewrite
import toolchain
from toolchain import BUILD, CompileError

# Reported, but no failure unless the caller is strict.
WARNINGS = {"buffer-missing", "race-simdgroup", "uninit-threadgroup", "simd-divergent", "shift", "info"}
MAX_THREADGROUP_BYTES = 32768


def prepare(text, entry, version=310, fast_math=False, alt_layout=False, runtime_arrays=False):
    """Checks and builds kernel `entry` of `text`. Returns what execute() needs; it is kept on disk, as builds are slow."""
    how = (fast_math, alt_layout, runtime_arrays)
    what = json.dumps([text, entry, version, how, toolchain.stamp()])
    folder = os.path.join(BUILD, hashlib.sha1(what.encode()).hexdigest()[:20])
    kept = os.path.join(folder, "built.json")
    if os.path.exists(kept):
        return json.load(open(kept))
    os.makedirs(folder, exist_ok=True)
    source = os.path.join(folder, f"kernel-{os.getpid()}.metal")
    with open(source, "w") as file:
        file.write(f'#line 1 "kernel.metal"\n{text}')
    try:
        unit = rewrite.Unit(toolchain.preprocess(source, version), source)
    finally:
        os.remove(source)
    try:
        expression, function = unit.binding(entry)
    except KeyError:
        # A text that does not parse has lost its kernels: the compiler says why.
        toolchain.compile_host(_headers(unit, "exec"), os.path.join(folder, "x.so"), *how)
        raise CompileError("bind", [f"no kernel '{entry}'; there are {', '.join(unit.kernels) or 'none'}"])
    rules = [f"{os.path.basename(e[0]) if e[0] else 'kernel.metal'}:{e[1]}: {e[2]}" for e in unit.errors]
    if rules:
        raise CompileError("rule", rules)
    library = os.path.join(folder, "kernel.so")
    toolchain.compile_host(_headers(unit, "exec") + _glue(entry, expression, function), library, *how)
    if unit.unmerged:
        names = ", ".join(f.name for _, f in unit.unmerged)
        raise CompileError("rewrite", [f"overloaded on address spaces only, with different bodies: {names}"])
    spaces = toolchain.check_spaces(_headers(unit, "check"), folder)
    if spaces:
        raise CompileError("address space", spaces)
    buffers = {}
    for parameter in function.params:
        bind = getattr(parameter, "bind", None)
        if bind and bind[0] == "buf" and re.fullmatch(r"\d+", bind[1].strip()):
            buffers[int(bind[1])] = {"name": parameter.split()[1], "written": not parameter.readonly}
    limits = [int(args) for attr in function.attrs for name, args, _ in attr.names
              if name == "max_total_threads_per_threadgroup" and re.fullmatch(r"\d+", args)]
    built = {"library": library, "buffers": buffers, "max_threads": min(limits, default=1024),
             "function": re.search(r"(\w+)\s*(<.*)?$", expression.split("<")[0].strip()).group(1)}
    with open(kept + f".{os.getpid()}", "w") as file:
        json.dump(built, file)
    os.replace(file.name, kept)
    return json.load(open(kept))


def _headers(unit, mode):
    return "#include <msl_host/entry.h>\n" + unit.emit(mode)


def _glue(entry, expression, function):
    """A C function without parameters that calls the kernel with those that the runtime gives."""
    arguments = []
    for parameter in function.params:
        kind, name = parameter.split()
        if [x.t for x in kind] in ([], ["void"]):
            continue
        bind = getattr(parameter, "bind", None)
        if bind is None:
            raise CompileError("bind", [f"kernel '{entry}': parameter '{name}' has no attribute, or is a texture"])
        arguments.append(f"msl_glue::{bind[0]}{{{bind[1]}}}")
    call = f"msl_glue::call({', '.join(['&' + expression] + arguments)});"
    exported = 'extern "C" MSL_NOSAN __attribute__((visibility("default"),used)) void msl_entry()'
    return f'\n# 1 "msl_host-glue"\n{exported} {{ {call} }}\n'


class Result:
    def __init__(self):
        self.reports, self.out, self.stats, self.failed, self.threadgroup_bytes = [], {}, {}, False, 0

    def add(self, kind, text):
        self.reports.append({"kind": kind, "pc": 0, "pc2": 0, "text": text, "n": 1, "at": "", "at2": ""})


def execute(built, buffers, threads, groups, order="fwd", tgmem=(), timeout=120):
    """Runs a kernel. `buffers`: {slot: bytes, or None and a length: unwritten}; `tgmem`: bytes of each [[threadgroup(i)]]."""
    folder = tempfile.mkdtemp(prefix="mslhost-")
    job = [f"so\t{built['library']}", "entry\tmsl_entry", f"report\t{folder}/report", f"tg\t{threads}\t1\t1",
           "groups\t" + "\t".join(map(str, groups)), "order\t" + "\t".join(order.split(":")), f"timeout\t{timeout}"]
    job += [f"tgmem\t{i}\t{n}" for i, n in enumerate(tgmem)]
    for slot, (data, length) in sorted(buffers.items()):
        known = built["buffers"].get(str(slot), {"name": f"buffer{slot}", "written": True})
        given = "-"
        if isinstance(data, str):
            given = data
        elif data is not None:
            given = f"{folder}/in{slot}"
            open(given, "wb").write(data)
        flags = ("w" if known["written"] else "r") + ("u" if data is None else "")
        out = f"{folder}/out{slot}" if known["written"] else "-"
        job.append(f"buf\t{slot}\t{length}\t{flags}\t{known['name']}\t{given}\t{out}")
    open(f"{folder}/job", "w").write("\n".join(job) + "\n")
    done = toolchain.run([toolchain.runtime(), f"{folder}/job"])
    result, variables = Result(), []
    report = open(f"{folder}/report").read() if os.path.exists(f"{folder}/report") else ""
    for fields in (line.split("\t") for line in report.splitlines()):
        if fields[0] == "REPORT":
            pc, pc2 = int(fields[2], 16), int(fields[3], 16)
            result.reports.append({"kind": fields[1], "pc": pc, "pc2": pc2, "text": fields[4], "n": int(fields[5])})
        elif fields[0] == "TGVAR":
            variables.append((int(fields[2]), fields[3]))
        elif fields[0] == "STATS":
            result.stats = {fields[i]: float(fields[i + 1]) for i in range(1, len(fields), 2)}
    toolchain.symbolise(built["library"], result.reports)
    result.failed = done.returncode != 0
    if done.returncode not in (0, 3):
        result.add("runtime", f"exit code {done.returncode}: {done.stderr.strip()[:300]}")
    tag = f"{len(built['function'])}{built['function']}"
    result.threadgroup_bytes = sum(n for n, symbol in variables if tag in symbol) + sum(tgmem)
    if result.threadgroup_bytes > MAX_THREADGROUP_BYTES:
        result.add("limits", f"{result.threadgroup_bytes} bytes of threadgroup memory, {MAX_THREADGROUP_BYTES} are the most")
    if threads > built["max_threads"]:
        result.add("limits", f"{threads} threads per threadgroup, the kernel allows {built['max_threads']}")
    for slot in buffers:
        if os.path.exists(f"{folder}/out{slot}"):
            result.out[slot] = open(f"{folder}/out{slot}", "rb").read()
    shutil.rmtree(folder, ignore_errors=True)
    return result


def show(report):
    at = f"at {report['at']}: " if report["at"] else ""
    other = f" (other access at {report['at2']})" if report["at2"] else ""
    times = f" x{report['n']}" if report["n"] > 1 else ""
    return f"[{report['kind']}] {at}{report['text']}{other}{times}"


def answer(request):
    """Builds and runs what a request asks for, under each order, and compares the orders' outputs bit for bit."""
    names = ("version", "fast_math", "alt_layout", "runtime_arrays")
    options = {key: request[key] for key in names if key in request}
    built = prepare(request["text"], request["entry"], **options)
    if request.get("check_only"):
        return {"ok": True, "log": ""}
    buffers = {b["slot"]: (b["file"], b["bytes"]) for b in request["buffers"]}
    log, kinds, first, most = [], set(), None, 0
    for order in request.get("orders", ["fwd"]):
        result = execute(built, buffers, request["threads"], request["groups"], order, request.get("tgmem", ()), request.get("timeout", 120))
        for report in result.reports:
            if request.get("strict", True) or report["kind"] not in WARNINGS:
                kinds.add(report["kind"])
                log.append(f"order {order}: {show(report)}")
        most = max(most, result.threadgroup_bytes)
        if first is None:
            first = result.out
        changed = [s for s in result.out if result.out[s] != first.get(s)]
        if changed and not result.failed:
            kinds.add("schedule")
            log.append(f"buffers {changed} depend on the schedule: {order} differs")
    for slot, data in (first or {}).items():
        out = next((b["out"] for b in request["buffers"] if b["slot"] == slot and b.get("out")), None)
        if out:
            open(out, "wb").write(data)
    return {"ok": not log, "log": "\n".join(log[:20]), "kinds": sorted(kinds), "threadgroup_bytes": most}


def serve():
    """Answers requests, one JSON object a line: text, entry, threads, groups [x, y, z], buffers [{slot, file, bytes, out}],
    and optionally orders, strict, fast_math, alt_layout, runtime_arrays, tgmem, timeout, version, check_only."""
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except CompileError as error:
            reply = {"ok": False, "log": str(error), "kinds": [error.stage]}
        except Exception as error:  # the caller shows it: a fault of this tool
            reply = {"ok": False, "log": f"msl_host failed: {type(error).__name__}: {error}", "kinds": ["tool"]}
        print(json.dumps(reply), flush=True)


def main(arguments):
    if toolchain.clang() is None:
        print(f"msl_host needs clang++ {toolchain.MIN_CLANG} or newer", file=sys.stderr)
        return 2
    if arguments[:1] == ["serve"]:
        serve()
        return 0
    if arguments[:1] != ["check"] or len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    text = open(arguments[1]).read()
    entries = arguments[2:] or re.findall(r"kernel\s+void\s+(\w+)", text)
    status = 0
    for entry in entries:
        try:
            prepare(text, entry)
            print(f"{entry}: ok")
        except CompileError as error:
            print(f"{entry}: {error}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

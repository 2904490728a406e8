"""Compiles MSL on a Linux machine: preprocessing, the address-space pass, the host build, the runtime."""
import functools
import glob
import hashlib
import os
import re
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(HERE, "include")
BUILD = os.environ.get("MSL_HOST_BUILD") or os.path.join(tempfile.gettempdir(), f"msl_host-{os.getuid()}")
MIN_CLANG = 16  # _Float16 on x86


class CompileError(Exception):
    """A stage (preprocess, compile, link, ...) and the diagnostics that it ended with."""

    def __init__(self, stage, diagnostics, raw=""):
        self.stage = stage
        self.diagnostics = diagnostics or [raw.strip()[:2000]]
        super().__init__(f"{stage}: " + "\n".join(self.diagnostics))


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, errors="replace", **options)


@functools.cache
def clang():
    """The compiler; None if there is none that is new enough."""
    names = [os.environ.get("MSL_HOST_CLANG"), "clang++"] + [f"clang++-{n}" for n in (19, 20, 21, 22, 18, 17, 16)]
    for name in names:
        if name and shutil.which(name):
            version = re.search(r"version (\d+)", run([name, "--version"]).stdout)
            if version and int(version.group(1)) >= MIN_CLANG:
                return name
    return None


@functools.cache
def stamp():
    """Changes when the tool does, so that nothing stale is taken from the cache."""
    digest = hashlib.sha1(str(clang()).encode())
    patterns = ("*.py", "include/*", "include/*/*", "runtime/*")
    for path in sorted(p for pattern in patterns for p in glob.glob(os.path.join(HERE, pattern))):
        if os.path.isfile(path):
            digest.update(open(path, "rb").read())
    return digest.hexdigest()


def preprocess(path, version):
    command = [clang(), "-E", "-x", "c++", "-std=c++17", "-nostdinc", "-undef", "-DMSL_HOST_PP", "-D__METAL__=1",
               f"-D__METAL_VERSION__={version}", "-D__METAL_MACOS__=1", "-D__HAVE_BFLOAT__=1",
               "-D__HAVE_SIMDGROUP_MATRIX__=1", "-D__METAL_FAST_MATH__=0", "-Wno-everything", f"-I{INCLUDE}", path]
    done = run(command)
    if done.returncode:
        raise CompileError("preprocess", [l for l in done.stderr.splitlines() if "error" in l][:20], done.stderr)
    return done.stdout


def parse_diagnostics(stderr):
    """[(severity, file, line, message, [notes])]"""
    found = []
    for line in stderr.splitlines():
        m = re.match(r"(.*?):(\d+):\d+: (fatal error|error|warning|note): (.*)", line)
        if not m:
            continue
        file, number, severity, text = m.groups()
        if severity == "note":
            if found:
                found[-1][4].append((file, int(number), text))
        else:
            found.append(("error" if "error" in severity else severity, file, int(number), text, []))
    return found


SPACES = {"__global": "device", "__local": "threadgroup", "__constant": "constant", "__private": "thread"}
SPACE_ERROR = re.compile(
    r"changes address space|address space mismatch|mismatching address spaces"
    r"|in address space '__\w+' to object in address space|pointer to address space '__\w+' as a pointer to address space")


def _space_message(text):
    """The message in Metal's words, if it complains about two different named address spaces."""
    if "__generic" in text or "cannot bind to a temporary" in text:
        return None
    text = re.sub(r" \(aka '[^']*'\)", "", text)  # an alias is no second type
    hit = SPACE_ERROR.search(text)
    quoted = [q for q in re.findall(r"'([^']*)'", text) if re.search(r"__(global|local|constant|private)\b.*[*&\[]", q)]
    if not hit and len(quoted) >= 2:
        one, other = [re.findall(r"__(?:global|local|constant|private)", re.split(r"[*&\[]", q)[0]) for q in quoted[:2]]
        hit = one and other and one != other
    if not hit:
        return None
    for opencl, metal in SPACES.items():
        text = re.sub(r"\b" + opencl + r"\b", metal, text)
    return re.sub(r"(\*|&)\s*thread\b(?! *\*)", r"\1", text)


def space_errors(diagnostics):
    """Of the errors of the address-space pass those about address spaces. Everything else is either reported by the host
    compile too, or an artefact of C++ for OpenCL (no implicit copy out of constant; a generic this)."""
    kept = []
    for severity, file, number, text, notes in diagnostics:
        if severity != "error":
            continue
        message = _space_message(text)
        candidates = r"no matching (function|member function|constructor)|no viable"
        if message is None and re.search(candidates, text):
            about = " ".join(note[2] for note in notes)
            copies = r"implicit (copy|move) (constructor|assignment)"
            if re.search(r"address space '?__generic'?", about) and not re.search(copies, about):
                continue
            constant = r"implicit (copy|move) constructor\) not viable: cannot bind reference in address space '__constant'"
            if re.search(constant, about) or ("no viable overloaded '='" in text and "__constant" in about):
                continue
            for note in notes:
                inner = _space_message(note[2])
                if inner:
                    message = f"{text} -- {inner}"
                    break
        if message:
            kept.append(f"{os.path.basename(file)}:{number}: {message}")
    return kept


def check_spaces(source, folder):
    """Parses `source` as C++ for OpenCL, where the four address spaces are distinct types."""
    path = os.path.join(folder, f"spaces-{os.getpid()}.clcpp")
    with open(path, "w") as file:
        file.write(source)
    command = [clang(), "-DMSL_CHECK", "-x", "clcpp", "-cl-std=clc++2021", "-cl-no-stdinc", "-nostdinc", "-fdeclspec",
               "-Xclang", "-cl-ext=+cl_khr_fp16,+__cl_clang_function_pointers", "-fsyntax-only", "-ferror-limit=0",
               "-ftemplate-backtrace-limit=2", "-Wno-everything", f"-I{INCLUDE}", path]
    done = run(command)
    os.remove(path)
    return space_errors(parse_diagnostics(done.stderr))


def compile_host(source, library, fast_math, alt_layout, runtime_arrays):
    """Builds an instrumented shared library of `source`. `runtime_arrays`: T[1] may stand for an array of any length."""
    undefined = "alignment,integer-divide-by-zero,shift-exponent" + ("" if runtime_arrays else ",array-bounds")
    base = f"{library}.{os.getpid()}"
    with open(base + ".cpp", "w") as file:
        file.write(source)
    command = [
        clang(), "-std=c++17", "-O1", "-gline-tables-only", "-fPIC", "-nostdinc", "-fdeclspec", "-fno-exceptions",
        "-fno-rtti", "-fno-strict-aliasing", "-fwrapv", "-ffp-contract=off", "-fno-omit-frame-pointer",
        "-fno-optimize-sibling-calls", "-fno-builtin", "-fno-math-errno", "-fvisibility=hidden",
        "-ftrivial-auto-var-init=pattern", "-Xclang", "-fconvergent-functions",
        "-Xclang", "-ffloat16-excess-precision=none", "-ftemplate-backtrace-limit=4", "-ferror-limit=50",
        "-Wno-everything", "-Werror=return-type", f"-I{INCLUDE}",
        # Loads and stores call __tsan_* functions, which the runtime defines.
        "-fsanitize=thread", "-mllvm", "-tsan-instrument-func-entry-exit=0", "-mllvm", "-tsan-instrument-atomics=0",
        "-mllvm", "-tsan-instrument-read-before-write=1",
        f"-fsanitize={undefined},return,unreachable", f"-fsanitize-recover={undefined}",
        "-Xclang", "-fsanitize-minimal-runtime",
    ]
    if os.uname().machine == "x86_64" and "f16c" in open("/proc/cpuinfo").read():
        command += ["-mf16c", "-mfma"]
    command += ["-ffast-math"] if fast_math else []
    command += ["-DMSL_SGM_ALT"] if alt_layout else []
    header = ["-include-pch", _precompiled(tuple(command))]
    done = run(command + header + ["-x", "c++", "-c", base + ".cpp", "-o", base + ".o"])
    if done.returncode:
        errors = [f"{os.path.basename(file)}:{number}: {text}" + "".join(f" (note: {n[2]})" for n in notes[:2])
                  for severity, file, number, text, notes in parse_diagnostics(done.stderr) if severity == "error"]
        raise CompileError("compile", errors, done.stderr)
    _with_any_compiler(["-shared", "-o", base + ".so", base + ".o", "-Wl,--unresolved-symbols=ignore-all", "-lm"])
    for part in (".cpp", ".o"):
        os.remove(base + part)
    os.replace(base + ".so", library)


@functools.cache
def _precompiled(command):
    """The headers, parsed once for each set of options."""
    digest = hashlib.sha1(" ".join(command + (stamp(),)).encode()).hexdigest()[:12]
    header = os.path.join(BUILD, f"entry-{digest}.pch")
    if not os.path.exists(header):
        mine = f"{header}.{os.getpid()}"
        done = run([*command, "-x", "c++-header", os.path.join(INCLUDE, "msl_host", "entry.h"), "-o", mine])
        if done.returncode:
            raise CompileError("compile", ["the tool's own headers"], done.stderr)
        os.replace(mine, header)
    return header


def _with_any_compiler(arguments):
    done = None
    for compiler in (os.environ.get("CXX"), "c++", "g++", clang()):
        if compiler and shutil.which(compiler):
            done = run([compiler] + arguments)
            if done.returncode == 0:
                return
    raise CompileError("link", [], done.stderr if done else "no C++ compiler")


@functools.cache
def runtime():
    """The program that runs a kernel; built at its first use."""
    os.makedirs(BUILD, exist_ok=True)
    program = os.path.join(BUILD, f"msl_rt-{stamp()[:12]}")
    if not os.path.exists(program):
        mine = f"{program}.{os.getpid()}"
        source = os.path.join(HERE, "runtime", "msl_rt.cpp")
        _with_any_compiler(["-O2", "-g", "-std=c++17", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls",
                            "-rdynamic", source, "-o", mine, "-ldl", "-lm"])
        os.replace(mine, program)
    return program


def symbolise(library, reports):
    """Adds source lines to the reports."""
    places = sorted({r[key] for r in reports for key in ("pc", "pc2") if r[key]})
    lines = {0: ""}
    tool = next((t for t in ("llvm-symbolizer-19", "llvm-symbolizer", "addr2line") if shutil.which(t)), None)
    if places and tool == "addr2line":
        done = run([tool, "-e", library] + [hex(p) for p in places])
        lines.update((p, _short(l)) for p, l in zip(places, done.stdout.splitlines()))
    elif places and tool:
        done = run([tool, f"--obj={library}", "--no-demangle"] + [hex(p) for p in places])
        for place, block in zip(places, done.stdout.split("\n\n")):
            frames = [_short(l) for l in block.strip().splitlines()[1::2] if "msl_host" not in l]
            lines[place] = " < ".join(frames[:3])
    for report in reports:
        report["at"], report["at2"] = lines.get(report["pc"], ""), lines.get(report["pc2"], "")


def _short(line):
    m = re.match(r"(.*?):(\d+)(?::\d+)?( .*)?$", line.strip())
    return f"{os.path.basename(m.group(1))}:{m.group(2)}" if m else line.strip()

#!/usr/bin/env python3
"""Self-test of msl_host: kernels that must pass, and planted faults that must be caught.   selftest.py [NAME ...]"""
import math
import os
import random
import struct
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import mslhost
import toolchain

RNG = random.Random(7)
ORDERS = ("fwd", "rev", "rand:1")


def read(name):
    return open(os.path.join(HERE, "kernels", name)).read()


# Numbers as bytes and back, by the letters of Python's struct module; "b" stands for bfloat.
def encode(letter, values):
    if letter == "b":
        words = [struct.unpack("<I", struct.pack("<f", v))[0] for v in values]
        return struct.pack(f"<{len(words)}H", *((w + 0x7fff + (w >> 16 & 1)) >> 16 for w in words))
    return struct.pack(f"<{len(values)}{letter}", *values)


def decode(letter, data):
    if letter == "b":
        return [struct.unpack("<f", struct.pack("<I", w << 16))[0] for w in decode("H", data)]
    return list(struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data))


def rounded(letter, values):
    return decode(letter, encode(letter, values))


def normal(count, letter):
    return rounded(letter, [RNG.gauss(0, 1) for _ in range(count)])


class Outcome:
    """Kinds of what was reported, and the reports."""

    def __init__(self):
        self.kinds, self.text = set(), []

    def add(self, kind, text=""):
        self.kinds.add(kind)
        self.text.append(f"{kind}: {text}")


def execute(text, entry, buffers, threads, groups, expect=(), tolerance=1e-2, tgmem=(), timeout=120):
    """Runs `entry` under all orders. `buffers`: bytes, or a length for an unwritten one; `expect`: (slot, letter, values)."""
    outcome = Outcome()
    try:
        built = mslhost.prepare(text, entry)
    except toolchain.CompileError as error:
        outcome.add(error.stage, error.diagnostics[0])
        return outcome
    given = {i: (b, len(b)) if isinstance(b, bytes) else (None, b) for i, b in buffers.items()}
    first = {}
    for order in ORDERS:
        result = mslhost.execute(built, given, threads, groups, order, tgmem, timeout)
        for report in result.reports:
            outcome.add(report["kind"], mslhost.show(report))
        if result.failed:
            return outcome
        for slot, letter, want in expect:
            got = decode(letter, result.out[slot])
            wrong = [i for i, (g, w) in enumerate(zip(got, want)) if not abs(g - w) <= tolerance + tolerance * abs(w)]
            if wrong or len(got) != len(want):
                i = wrong[0] if wrong else -1
                outcome.add("mismatch", f"{len(wrong)} of {len(want)} wrong, first {i}: {got[i]} for {want[i]}")
            if first.setdefault(slot, result.out[slot]) != result.out[slot]:
                outcome.add("schedule", f"buffer {slot} depends on the schedule")
    return outcome


def gemm(text, m=50, n=40, k=36):
    a, b = normal(m * k, "e"), normal(k * n, "e")
    want = [sum(a[i * k + t] * b[t * n + j] for t in range(k)) for i in range(m) for j in range(n)]
    buffers = {0: encode("e", a), 1: encode("e", b), 2: m * n * 2, 3: encode("I", [m, n, k])}
    return execute(text, "gemm_f16", buffers, 128, (-(-n // 32), -(-m // 32), 1), [(2, "e", want)], 2e-2)


def attention(text, name="half", letter="e", queries=10, keys=37):
    depth, heads = 64, 2
    q, k, v = (normal(heads * rows * depth, letter) for rows in (queries, keys, keys))
    row = lambda x, rows, h, i: x[(h * rows + i) * depth:][:depth]
    want = []
    for h in range(heads):
        for i in range(queries):
            mine = row(q, queries, h, i)
            scores = [sum(x * y for x, y in zip(mine, row(k, keys, h, j))) / 8 for j in range(keys)]
            weights = [math.exp(s - max(scores)) for s in scores]
            for d in range(depth):
                want.append(sum(w * row(v, keys, h, j)[d] for j, w in enumerate(weights)) / sum(weights))
    size = len(encode(letter, [0]))
    buffers = {0: encode(letter, q), 1: encode(letter, k), 2: encode(letter, v), 3: heads * queries * depth * size,
               4: encode("I", [queries]), 5: encode("I", [keys]), 6: encode("f", [0.125])}
    tolerance = 1e-4 if letter == "f" else 2e-2
    return execute(text, f"attention_{name}_64", buffers, 128, (-(-queries // 4), heads, 1), [(3, letter, want)], tolerance)


def lanes(text):
    bits = lambda x: struct.unpack("<I", struct.pack("<f", x))[0]
    half = lambda x: rounded("e", [x])[0]
    words, floats = [], []
    for t in range(64):
        l = t % 32
        scaled = half(half(half(t) * half(0.1)) * 100)
        row = [496, l * (l - 1) // 2, l * (l + 1) // 2, l ^ 5, l if l < 3 else l - 3, l if l > 28 else l + 3, (l + 3) % 32, 14,
               sum(1 << i for i in range(0, 32, 3)), 21, l // 4 * 16 + 6, 130 + l if l < 2 else l - 2, 8, 10 if l < 10 else 0,
               (t + 1) % 64 * ((t + 1) % 64), 64, 189, bin(0xf0f0 + t).count("1"), 32 - (t + 1).bit_length(), bits(t),
               (0xabcd1234 >> 8) & 0xfff, 0x18, (0x80000000 * t) >> 32, 4 * t + 2 * t * 1000, 4 * t > 100, 2 if t > 5 else 1,
               int(scaled), struct.unpack("<H", struct.pack("<e", t))[0],
               int(rounded("f", [rounded("b", rounded("f", [rounded("f", [1.01])[0] * t]))[0] * 1000])[0]), min(t + 250, 255)]
        words += row + [None] * (32 - len(row))
        length = math.sqrt(t * t + 5)
        x, y, z = (v / length + min(max(v, 0.5), 1.5) for v in (t, 1, 2))
        floats += [x * x + y * y + z * z, x * y + z, math.exp(t / 64), 6.25]
    # Columns that the kernel leaves alone keep the fill.
    words = [0xffffffff if w is None else int(w) for w in words]
    expect = [(0, "I", words)]
    buffers = {0: 64 * 128, 1: 64 * 16, 2: encode("I", [5])}
    whole = execute(text, "lanes", buffers, 64, (1, 1, 1), expect, 0, [256])
    parts = execute(text, "lanes", buffers, 64, (1, 1, 1), [(1, "f", floats)], 1e-3, [256])
    whole.kinds |= parts.kinds
    whole.text += parts.text
    return whole


def matrices(text):
    a, b = normal(256, "e"), normal(256, "f")
    block = lambda x, top, left: [[x[(top + i) * 16 + left + j] for j in range(8)] for i in range(8)]
    flip = lambda x: [list(column) for column in zip(*x)]
    dot = lambda x, y: [[sum(p * q for p, q in zip(row, column)) for column in zip(*y)] for row in x]
    each = lambda f, *x: [[f(*values) for values in zip(*rows)] for rows in zip(*x)]
    flat = lambda x: [v for row in x for v in row]
    left, right, wide = block(a, 0, 0), block(a, 8, 4), flip(block(b, 0, 0))
    product = dot(left, right)
    triple = each(lambda v: 3 * v, wide)
    layout = []
    for lane in range(32):
        i, j = (lane >> 4 & 1) * 4 + (lane >> 1 & 3), (lane >> 3 & 1) * 4 + (lane & 1) * 2
        layout += wide[i][j:j + 2]
    blocks = [wide, flip(wide), product, each(lambda x, y: x + y, dot(left, wide), product), triple, each(lambda v: v + 1, product)]
    want = [v for one in blocks for v in flat(one)] + layout + flat(triple)
    buffers = {0: encode("e", a), 1: encode("f", b), 2: 512 * 4, 3: 128}
    return execute(text, "matrices", buffers, 32, (1, 1, 1), [(2, "f", want), (3, "b", [1.5] * 64)])


def rowsum(text, n=300, rows=3, out=None):
    x = normal(rows * n, "e")
    want = [(1, "f", [sum(x[r * n:(r + 1) * n]) for r in range(rows)])] if out is None else []
    return execute(text, "row_sum", {0: encode("e", x), 1: (out or rows) * 4, 2: encode("I", [n])}, 128, (rows, 1, 1), want)


def add(text, n=100, threads=32):
    a, b = normal(n, "f"), normal(n, "f")
    buffers = {0: encode("f", a), 1: encode("f", b), 2: n * 4, 3: encode("I", [n])}
    want = [(2, "f", [x + y for x, y in zip(a, b)])]
    return execute(text, "add", buffers, threads, (-(-n // threads), 1, 1), want)


ARGUMENTS = ("device float* o [[buffer(0)]], device const float* x [[buffer(1)]], uint t [[thread_index_in_threadgroup]], "
             "uint lane [[thread_index_in_simdgroup]]")


def one(body, pre="", args=ARGUMENTS, tg=64):
    """A throw-away kernel."""
    text = f"#include <metal_stdlib>\nusing namespace metal;\n{pre}\nkernel void k({args}) {{\n{body}\n}}\n"
    return execute(text, "k", {0: 4096, 1: encode("f", range(1024))}, tg, (1, 1, 1), timeout=5)


def sub(text, old, new):
    assert old in text, f"nothing to change: {old}"
    return text.replace(old, new, 1)


G, A, Ba, La, Ma = (read(f"{name}.metal") for name in ("gemm", "attention", "basic", "lanes", "matrix"))
# The write at the end is behind the neighbour's read only if there is a barrier after that.
NEIGHBOUR = """threadgroup float s[64]; s[t] = x[t]; simdgroup_barrier(mem_flags::mem_threadgroup); float a = s[t ^ 1u];
SECOND float b = s[t]; s[t] = a; o[t] = b;"""
OK = {
    "add": lambda: add(Ba), "row_sum": lambda: rowsum(Ba), "gemm, ragged": lambda: gemm(G),
    "gemm, aligned": lambda: gemm(G, 64, 64, 32), "attention, half": lambda: attention(A),
    "attention, float": lambda: attention(A, "float", "f"), "attention, bfloat": lambda: attention(A, "bfloat", "b"),
    "lanes": lambda: lanes(La), "matrices": lambda: matrices(Ma),
    "read by a neighbour, then its own": lambda: one(NEIGHBOUR.replace("SECOND", "simdgroup_barrier(mem_flags::mem_threadgroup);")),
}
EXPECTED = {"lanes": {"simd-divergent"}}  # it sums under a condition on purpose
AFTER_LOAD = " threadgroup_barrier(mem_flags::mem_threadgroup); // after load"
BEFORE_LOAD = "        threadgroup_barrier(mem_flags::mem_threadgroup); // before the next load\n"
# name: (what to run, kinds of which at least one must be reported)
FAULTS = {
    # --- execution
    "missing barrier after the load": (lambda: gemm(sub(G, AFTER_LOAD, " // after load")), {"race"}),
    "missing barrier before the next load": (lambda: gemm(sub(G, BEFORE_LOAD, "")), {"race"}),
    "barrier with the wrong mem_flags": (lambda: gemm(sub(G, AFTER_LOAD, " threadgroup_barrier(mem_flags::mem_none); // after load")), {"race"}),
    "barrier inside a divergent branch": (lambda: gemm(sub(G, AFTER_LOAD, " if (lane < 16) threadgroup_barrier(mem_flags::mem_threadgroup);")), {"barrier-divergence"}),
    "early return before a barrier": (lambda: gemm(sub(G, "    simdgroup_float8x8 acc", "    if (tid >= 96) return;\n    simdgroup_float8x8 acc")), {"barrier-divergence"}),
    "threads wait at two different barriers": (lambda: one("if (t < 32) { o[t] = 2; threadgroup_barrier(mem_flags::mem_none); } else threadgroup_barrier(mem_flags::mem_device); o[t] = 1;"), {"barrier-divergence"}),
    "read by a neighbour, without a barrier after it": (lambda: one(NEIGHBOUR.replace("SECOND", "")), {"race-simdgroup"}),
    "missing simdgroup_barrier (lockstep assumption)": (lambda: gemm(sub(G, "    simdgroup_barrier(mem_flags::mem_threadgroup); // own staging area\n", "")), {"race-simdgroup"}),
    "staging shared by all SIMD-groups": (lambda: gemm(G.replace("stage[4][16 * 16]", "stage[1][16 * 16]").replace("stage[sg]", "stage[0]")), {"race"}),
    "wrong index: A tile transposed": (lambda: gemm(sub(G, "src[(r0 + r) * ld + c0 + c]", "src[(r0 + c) * ld + c0 + r]")), {"mismatch"}),
    "wrong index: column offset of the output": (lambda: gemm(sub(G, "c = col0 + sc + e % 16", "c = col0 + sc + (e + 1) % 16")), {"mismatch"}),
    "wrong leading dimension in simdgroup_load": (lambda: gemm(sub(G, "kk, BK);", "kk, BN);")), {"mismatch", "oob-read"}),
    "wrong transpose flag": (lambda: gemm(sub(G, "sc + j * 8, BN);", "sc + j * 8, BN, ulong2(0), true);")), {"mismatch"}),
    "accumulator not initialised": (lambda: gemm(sub(G, "acc[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f)", "(void)0")), {"mismatch"}),
    "half accumulation overflow": (lambda: gemm(sub(G, "half(stage[sg][e])", "half(stage[sg][e] * 1e5f)")), {"mismatch"}),
    "missing bounds check on load": (lambda: gemm(sub(G, "(r0 + r < rmax && c0 + c < cmax) ? src[(r0 + r) * ld + c0 + c] : half(0)", "src[(r0 + r) * ld + c0 + c]")), {"oob-read"}),
    "missing bounds check on store": (lambda: gemm(sub(G, "if (r < p.M && c < p.N) C", "C")), {"oob-write", "race-threadgroups"}),
    "add without a bounds check": (lambda: add(sub(Ba, "if (i < n) ", "")), {"oob-write", "oob-read"}),
    "threadgroup array too small": (lambda: gemm(sub(G, "As[BM * BK]", "As[BM * BK / 2]")), {"oob-write"}),
    "uninitialised threadgroup memory": (lambda: rowsum(sub(Ba, "lane < (nt + 31) / 32 ? part[lane] : 0.0f", "part[lane]")), {"uninit-threadgroup"}),
    "two threadgroups write one element": (lambda: rowsum(sub(Ba, "o[row] = v", "o[0] = v"), out=3), {"race-threadgroups"}),
    "matrix multiply under a divergent condition": (lambda: gemm(sub(G, "simdgroup_multiply_accumulate(acc", "if (lane != 3) simdgroup_multiply_accumulate(acc")), {"simdgroup-matrix-divergence"}),
    "simd_sum under a divergent condition": (lambda: attention(sub(A, "s = simd_sum(s);", "if (lane < 31) s = simd_sum(s);")), {"simd-divergent", "mismatch"}),
    "shuffle reads an inactive lane": (lambda: one("float v = x[t]; if (lane < 8) v = simd_shuffle(v, 20); o[t] = v;"), {"simd-inactive-lane"}),
    "softmax without the running maximum rescale": (lambda: attention(sub(A, "o[i] = o[i] * a + p", "o[i] = o[i] + p")), {"mismatch"}),
    "missing tile-free barrier in attention": (lambda: attention(sub(A, "        threadgroup_barrier(mem_flags::mem_threadgroup); // tile free\n", "")), {"race"}),
    "misaligned vector access": (lambda: one("device const float4* p = (device const float4*)(x + 1); o[t] = p[0].x;"), {"misaligned"}),
    "misaligned copy of a vector": (lambda: one("threadgroup half s[600]; *(threadgroup half4*)(s + t * 8u + 1u) = half4(x[t]); threadgroup_barrier(mem_flags::mem_threadgroup); o[t] = s[1];"), {"misaligned"}),
    "index past a thread array": (lambda: one("float a[4]; for (uint i = 0; i < 4; ++i) a[i] = x[i]; o[t] = a[t];"), {"array-bounds", "fault"}),
    "integer division by zero": (lambda: one("o[t] = float(t / (t - 3u));"), {"div-by-zero"}),
    "write through a cast-away const buffer": (lambda: one("((device float*)x)[t] = 1;"), {"write-readonly"}),
    "atomic counter read without atomics": (lambda: one("threadgroup atomic_uint c; if (t == 0) atomic_store_explicit(&c, 0u, memory_order_relaxed); threadgroup_barrier(mem_flags::mem_threadgroup); atomic_fetch_add_explicit(&c, 1u, memory_order_relaxed); o[t] = *(threadgroup uint*)&c;"), {"race", "race-simdgroup"}),
    "endless loop": (lambda: one("while (x[0] == 0) { if (o[900] == 12345.0f) break; } o[t] = 1;"), {"timeout"}),
    "forgotten buffer": (lambda: one("o[t] = y[t];", args="device float* o [[buffer(0)]], device const float* y [[buffer(7)]], uint t [[thread_index_in_threadgroup]]"), {"unbound-buffer"}),
    "too much threadgroup memory": (lambda: one("threadgroup float big[9000]; big[t] = 1; o[t] = big[t];"), {"limits"}),
    "too many threads": (lambda: one("o[0] = 1;", tg=1056), {"limits"}),
    # --- compilation
    "syntax error": (lambda: gemm(sub(G, "uint r = i / COLS, c = i % COLS;", "uint r = i / COLS c = i % COLS;")), {"compile"}),
    "unbalanced brace": (lambda: gemm(sub(G, "        for (uint kk = 0; kk < BK; kk += 8) {", "        for (uint kk = 0; kk < BK; kk += 8) {{")), {"compile", "rule", "preprocess"}),
    "unknown function": (lambda: attention(sub(A, "exp(s - mn)", "expf(s - mn)")), {"compile"}),
    "unknown type": (lambda: gemm(sub(G, "simdgroup_half8x8 a[2]", "simdgroup_double8x8 a[2]")), {"compile"}),
    "undeclared variable in an uninstantiated branch": (lambda: attention(sub(A, "m = mn;", "m = mnn;")), {"compile"}),
    "matrix element type and pointer differ": (lambda: gemm(sub(G, "threadgroup half As[BM * BK]", "threadgroup float As[BM * BK]")), {"compile"}),
    "16x16 simdgroup matrix": (lambda: one("simdgroup_matrix<float, 16, 16> m; o[t] = 0;"), {"compile"}),
    "ambiguous min(int, uint)": (lambda: one("int a = 3; o[t] = min(a, t);"), {"compile"}),
    "implicit float to bfloat": (lambda: one("threadgroup bfloat b[64]; b[t] = x[t]; o[t] = b[t];"), {"compile"}),
    "implicit vector conversion": (lambda: one("float4 a = half4(1); o[t] = a.x;"), {"compile"}),
    "vector of the wrong width": (lambda: one("float3 a = float4(1); o[t] = a.x;"), {"compile"}),
    "too few vector components": (lambda: one("float4 a = float4(1, 2, 3); o[t] = a.x;"), {"compile"}),
    "64-bit simd_sum": (lambda: one("o[t] = float(simd_sum(ulong(t)));"), {"compile"}),
    "fetch_add on atomic_bool": (lambda: one("threadgroup atomic_bool b; atomic_fetch_add_explicit(&b, true, memory_order_relaxed); o[t] = 0;"), {"compile"}),
    "write to a const buffer": (lambda: one("x[t] = 1;"), {"compile"}),
    "write to constant": (lambda: one("tab[t] = 1; o[t] = tab[0];", "constant float tab[4] = {1, 2, 3, 4};"), {"compile"}),
    # --- address spaces
    "device pointer passed as a thread pointer": (lambda: one("f(x + t);", "inline void f(thread const float* p) { (void)p; }"), {"address space"}),
    "thread pointer passed as a device pointer": (lambda: one("float a = 1; f(&a);", "inline void f(device const float* p) { (void)p; }"), {"address space"}),
    "threadgroup pointer passed as device": (lambda: gemm(sub(G, "load_tile<BM, BK>(A, p.K, row0, k0, p.M, p.K, As, tid)", "load_tile<BM, BK>(As, p.K, row0, k0, p.M, p.K, As, tid)")), {"address space"}),
    "device pointer passed as threadgroup": (lambda: one("f((device float*)o);", "inline void f(threadgroup float* p) { (void)p; }"), {"address space"}),
    "constant passed as device": (lambda: one("f(tab);", "constant float tab[4] = {1, 2, 3, 4};\ninline void f(device const float* p) { (void)p; }"), {"address space"}),
    "cast across address spaces": (lambda: one("thread float* p = (thread float*)o; *p = 1;"), {"address space"}),
    "device reference to a local": (lambda: one("float a = 1; device float& r = a; o[t] = r;"), {"address space"}),
    "space hidden by an alias": (lambda: one("threadgroup A s[64]; device A* p = s; p[t] = 1;", "using A = float;"), {"address space"}),
    "template instantiated with the wrong space": (lambda: one("threadgroup float s[64]; s[t] = 1; o[t] = g<float>(s);", "template <typename T> inline T g(device const T* p) { return p[0]; }"), {"address space"}),
    # --- rules of Metal that C++ does not have
    "pointer without an address space": (lambda: one("f(0);", "inline void f(float* p) { (void)p; }"), {"rule"}),
    "function constant": (lambda: one("o[t] = N;", "constant uint N [[function_constant(0)]];"), {"rule"}),
    "misspelt attribute": (lambda: gemm(sub(G, "[[thread_index_in_threadgroup]]", "[[thread_index_in_threadgrp]]")), {"rule"}),
    "buffer index used twice": (lambda: gemm(sub(G, "[[buffer(1)]]", "[[buffer(0)]]")), {"rule"}),
    "buffer index out of range": (lambda: gemm(sub(G, "[[buffer(3)]]", "[[buffer(31)]]")), {"rule"}),
    "scalar kernel argument without attribute": (lambda: one("o[t] = n;", args="device float* o [[buffer(0)]], uint n, uint t [[thread_index_in_threadgroup]]"), {"rule"}),
    "vector type for a scalar attribute": (lambda: gemm(sub(G, "uint tid [[thread_index", "uint3 tid [[thread_index")), {"rule"}),
    "float type for an index attribute": (lambda: gemm(sub(G, "uint lane [[", "float lane [[")), {"rule"}),
    "double": (lambda: one("double d = 1; o[t] = float(d);"), {"rule"}),
    "static local variable": (lambda: one("static int n = 0; n++; o[t] = n;"), {"rule"}),
    "constexpr global without constant": (lambda: one("o[t] = N;", "constexpr uint N = 3;"), {"rule"}),
    "static member without constant": (lambda: one("o[t] = S::N;", "struct S { static constexpr uint N = 3; };"), {"rule"}),
    "global that is not constant": (lambda: one("o[t] = g;", "float g = 3;"), {"rule"}),
    "kernel that returns a value": (lambda: one("return 1;", pre="kernel int bad(device float* o [[buffer(0)]]) { return 1; }"), {"rule", "compile"}),
    "threadgroup variable in a helper": (lambda: one("f();", "inline void f() { threadgroup float s[4]; (void)s; }"), {"rule"}),
    "threadgroup variable with initialiser": (lambda: one("threadgroup float s = 0; o[t] = s;"), {"rule"}),
}


def main(wanted):
    problems, start = 0, time.time()
    chosen = lambda name: not wanted or any(w in name for w in wanted)
    for name, run in OK.items():
        if chosen(name):
            outcome = run()
            good = not outcome.kinds - EXPECTED.get(name, set())
            problems += not good
            print(("ok   passes: " if good else "FAIL passes: ") + name + "".join(f"\n     {t[:300]}" for t in outcome.text[:6] if not good))
    for name, (run, kinds) in FAULTS.items():
        if chosen(name):
            outcome = run()
            good = bool(outcome.kinds & kinds)
            problems += not good
            print(("ok   caught: " if good else f"MISS caught ({kinds}): ") + name
                  + "".join(f"\n     {t[:300]}" for t in outcome.text[:5] if not good))
    print(f"{len(OK)} kernels, {len(FAULTS)} faults, {problems} problems, {time.time() - start:.0f} s")
    return problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) != 0)

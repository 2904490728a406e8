// out[b] = epilogue(a[b] · w[b]), w[b] as [N, K] rows or (KN) [K, N], for up to ROWS rows of a: all of w is read once. Operands are halves
// or bf16 whose rows start on 16 bytes. Every thread takes eight neighbours of w at once, eight times before it looks at the first.
// Nk: eight threads walk along eight rows of w, one line of the cache a row and step. KN: CHUNKS threads side by side have eight
// columns each, and THREADS / CHUNKS such teams eight rows of K each. Sums then meet in workgroup memory, row by row of a.
// This sums in another order than the base tier, where a row has the same bits among any number of rows: so it is a tier of its own.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/activation.wgsl"
//!include "common/bf16.wgsl"
//!include "common/batched.wgsl"

#if KN
const TEAMS = THREADS / CHUNKS;
const COLUMNS = CHUNKS * 8u;
const STEP = TEAMS * 8u;
const TERMS = TEAMS;            // of an output
const APART = THREADS + CHUNKS; // from the terms of one of eight columns to the next's, in other banks
#else
const COLUMNS = THREADS;
const STEP = 64u;
const TERMS = 8u;
const APART = 9u;               // from the terms of a row of w to the next's, likewise
#endif
#if KN
var<workgroup> terms: array<f32, 8u * APART>;
#else
var<workgroup> terms: array<f32, COLUMNS * APART>;
#endif

alias Eight = mat2x4<f32>;

fn fetch0(at: u32) -> vec4<u32> { return a[at]; }
fn fetch1(at: u32) -> vec4<u32> { return w[at]; }

#for i 2
// Elements c to c + 7 of the row of operand {i} that starts at `start`; its last ones past its `width`.
fn load{i}(start: u32, c: u32, width: u32) -> vec4<u32> { return fetch{i}((start + min(c, width - 8u)) / 8u); }

// As numbers, zeros unless they are `inside`.
fn eight{i}(raw: vec4<u32>, inside: bool) -> Eight {
    let x = select(vec4<u32>(), raw, inside);
#if KIND{i} == bf16
    return Eight(vec4(bf16_pair(x.x), bf16_pair(x.y)), vec4(bf16_pair(x.z), bf16_pair(x.w)));
#else
    return Eight(
        vec4(unpack2x16float(x.x), unpack2x16float(x.y)),
        vec4(unpack2x16float(x.z), unpack2x16float(x.w)),
    );
#endif
}
#endfor

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tiles = (params.n + COLUMNS - 1u) / COLUMNS;
    let index = group_index(group, groups);
    let batch = index / tiles;
    if batch >= params.batches { return; } // the fold rounded up; uniform
    let n0 = index % tiles * COLUMNS;
    let batch_a = batch * params.stride_a;
    let batch_w = batch * params.stride_w;
#if KN
    let column = thread % CHUNKS * 8u;
    let part = thread / CHUNKS * 8u;
#for m ROWS
    var sum{m} = Eight();
#endfor
#else
    let row = n0 + thread / 8u * 8u;
    let part = thread % 8u * 8u;
#for m ROWS
#for r 8
    var sum{m}_{r} = 0.0;
#endfor
#endfor
#endif
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
        let k = k0 + part;
        let inside = k < params.k;
#for m ROWS
        let a{m} = load0(batch_a + min({m}u, params.m - 1u) * params.k, k, params.k);
#endfor
#for r 8
#if KN
        let w{r} = load1(batch_w + min(k + {r}u, params.k - 1u) * params.n, n0 + column, params.n);
#else
        let w{r} = load1(batch_w + min(row + {r}u, params.n - 1u) * params.k, k, params.k);
#endif
#endfor
#for m ROWS
        let x{m} = eight0(a{m}, inside);
#endfor
#for r 8
        let y{r} = eight1(w{r}, inside);
#for m ROWS
#if KN
        sum{m} += x{m}[{r} / 4][{r} % 4] * y{r};
#else
        sum{m}_{r} += dot(x{m}[0], y{r}[0]) + dot(x{m}[1], y{r}[1]);
#endif
#endfor
#endfor
    }
#for m ROWS
    workgroupBarrier();
#for r 8
#if KN
    terms[{r}u * APART + thread] = sum{m}[{r} / 4][{r} % 4];
#else
    terms[(row - n0 + {r}u) * APART + thread % 8u] = sum{m}_{r};
#endif
#endfor
    workgroupBarrier();
    // bf16 outputs are stored in pairs.
    if {m}u < params.m && thread < COLUMNS / SUMS && n0 + thread * SUMS < params.n {
        finish(batch, {m}u, n0, thread * SUMS);
    }
#endfor
}

// The sum of column n0 + n.
fn sum_of(n: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < TERMS; i++) {
#if KN
        sum += terms[n % 8u * APART + i * CHUNKS + n / 8u];
#else
        sum += terms[n * APART + i];
#endif
    }
    return sum;
}

// Stores SUMS outputs from column n0 + n on.
fn finish(batch: u32, m: u32, n0: u32, n: u32) {
    let at = (batch * params.m + m) * params.n + n0 + n;
    let bias_at = batch * params.stride_bias + n0 + n;
#for s SUMS
    var x{s} = sum_of(n + {s}u) * params.scale;
    if (params.flags & 1u) != 0u { x{s} += bias_of(bias_at + {s}u); }
    x{s} = activate(x{s}, params.activation);
    if (params.flags & 2u) != 0u { x{s} += residual_of(at + {s}u); }
#endfor
#if KIND3 == bf16
    out[at / 2u] = bf16_word(vec2(x0, x1));
#else
    out[at] = UNIT3(x0);
#endif
}

#if KIND3 == bf16
fn bias_of(at: u32) -> f32 { return bf16_of(bias[at / 2u], at); }
fn residual_of(at: u32) -> f32 { return bf16_of(residual[at / 2u], at); }
#else
fn bias_of(at: u32) -> f32 { return f32(bias[at]); }
fn residual_of(at: u32) -> f32 { return f32(residual[at]); }
#endif

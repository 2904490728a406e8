// The bindings, parameters and epilogue that gemm, gemm_coop and gemv share: out = epilogue(a · wᵀ), one part of the
// rows of w per launch. SPLIT writes three outputs of their own width; NORM takes gamma, the gains of an RMS norm of a.
struct Params {
    m: u32,             // rows of a
    n: u32,             // rows of this part of w
    k: u32,
    packets: u32,       // packets in a row of w
    groups: u32,        // scales in a row of w
    group_shift: u32,   // log2 of the group, 31 for one group a row
    n_first: u32,       // first output column of this part
    n_all: u32,         // columns of out, of all outputs together
    out_row: u32,       // first row of out that is written
    flags: u32,         // 1 bias, 2 add aux
    activation: u32,
    scale: f32,         // of the sums
    eps: f32,           // of the RMS norm
    q_end: u32,         // SPLIT: columns before the second output
    k_end: u32,         // and before the third
    kv_row: u32,        // their first row that is written
}
var<immediate> params: Params;
//!include "common/packed.wgsl"
//!include "common/bf16.wgsl"
@group(0) @binding(0) var<storage, read> a: array<A_UNIT>;
@group(0) @binding(4) var<storage, read> bias: array<OUT_UNIT>;
#if SPLIT
@group(0) @binding(5) var<storage, read_write> out: array<OUT_UNIT>;
@group(0) @binding(6) var<storage, read_write> out_k: array<OUT_UNIT>;
@group(0) @binding(7) var<storage, read_write> out_v: array<OUT_UNIT>;
#else
@group(0) @binding(5) var<storage, read> aux: array<OUT_UNIT>;
@group(0) @binding(6) var<storage, read_write> out: array<OUT_UNIT>;
#endif

// What is stored at once: an output, or a word of two in bf16. SUMS sums make it, from a multiple of SUMS rows of w on. All rows
// of w that there are is a multiple of it too.
#if TO == bf16
const IN_UNIT = 2u;
fn stored(unit: OUT_UNIT, index: u32) -> f32 { return bf16_of(unit, index); }
#else
const IN_UNIT = 1u;
fn stored(unit: OUT_UNIT, index: u32) -> f32 { return f32(unit); }
#endif
#if SUMS == 4
alias Sums = vec4<f32>;
#elif SUMS == 2
alias Sums = vec2<f32>;
#else
alias Sums = f32;
#endif

// Finishes and stores the sums for row `m` of a and SUMS rows of this part of w from `n` on. The caller has checked both.
fn finish(sums: Sums, m: u32, n: u32) {
#if PAIR
    // Rows of w alternate between gate and up: two neighbouring sums make one output.
    let column = (params.n_first + n) / 2u;
#if TO == bf16
    store(bf16_word(vec2<f32>(gated(sums.xy), gated(sums.zw))), m, column);
#else
    store(OUT_UNIT(gated(sums)), m, column);
#endif
#else
    let column = params.n_first + n;
#if TO == bf16
    store(bf16_word(vec2<f32>(output(sums.x, m, column), output(sums.y, m, column + 1u))), m, column);
#else
    store(OUT_UNIT(output(sums, m, column)), m, column);
#endif
#endif
}

// The same for four sums, as far as there are so many rows of w.
fn finish_four(sums: vec4<f32>, m: u32, n: u32) {
#if SUMS == 4
    if n < params.n { finish(sums, m, n); }
#elif SUMS == 2
    if n < params.n { finish(sums.xy, m, n); }
    if n + 2u < params.n { finish(sums.zw, m, n + 2u); }
#else
#for j 4
    if n + {j}u < params.n { finish(sums[{j}], m, n + {j}u); }
#endfor
#endif
}

// The same for four rows and SUMS columns from `n` on, column by column: what belongs to a column is loaded once, and a branch
// is taken once for all. Rows past the end are left out.
fn finish_rows(sums: array<vec4<f32>, SUMS>, rows: vec4<u32>, n: u32) {
#if PAIR
    let column = (params.n_first + n) / 2u;
    let values = activate_four(sums[0], params.activation) * sums[1];
#if TO == bf16
    let next = activate_four(sums[2], params.activation) * sums[3];
#endif
#else
    let column = params.n_first + n;
    let values = outputs(sums[0], rows, column);
#if TO == bf16
    let next = outputs(sums[1], rows, column + 1u);
#endif
#endif
#for r 4
#if TO == bf16
    if rows[{r}] < params.m { store(bf16_word(vec2<f32>(values[{r}], next[{r}])), rows[{r}], column); }
#else
    if rows[{r}] < params.m { store(OUT_UNIT(values[{r}]), rows[{r}], column); }
#endif
#endfor
}

#if PAIR
fn gated(sums: vec2<f32>) -> f32 { return activate(sums.x, params.activation) * sums.y; }
#else
fn output(sum: f32, m: u32, column: u32) -> f32 {
    var value = sum * params.scale;
    if (params.flags & 1u) != 0u { value += stored(bias[column / IN_UNIT], column); }
    value = activate(value, params.activation);
#if !SPLIT
    if (params.flags & 2u) != 0u {
        let at = m * params.n_all + column;
        value += stored(aux[at / IN_UNIT], at);
    }
#endif
    return value;
}

// The same of four rows.
fn outputs(sums: vec4<f32>, rows: vec4<u32>, column: u32) -> vec4<f32> {
    var values = sums * params.scale;
    if (params.flags & 1u) != 0u { values += stored(bias[column / IN_UNIT], column); }
    values = activate_four(values, params.activation);
#if !SPLIT
    if (params.flags & 2u) != 0u {
        let at = min(rows, vec4<u32>(params.m - 1u)) * params.n_all + column;
#for r 4
        let aux_{r} = stored(aux[at[{r}] / IN_UNIT], at[{r}]);
#endfor
        values += vec4<f32>(aux_0, aux_1, aux_2, aux_3);
    }
#endif
    return values;
}
#endif

fn store(unit: OUT_UNIT, m: u32, column: u32) {
#if SPLIT
    if column < params.q_end {
        out[((params.out_row + m) * params.q_end + column) / IN_UNIT] = unit;
    } else if column < params.k_end {
        let width = params.k_end - params.q_end;
        out_k[((params.kv_row + m) * width + column - params.q_end) / IN_UNIT] = unit;
    } else {
        let width = params.n_all - params.k_end;
        out_v[((params.kv_row + m) * width + column - params.k_end) / IN_UNIT] = unit;
    }
#else
    out[((params.out_row + m) * params.n_all + column) / IN_UNIT] = unit;
#endif
}

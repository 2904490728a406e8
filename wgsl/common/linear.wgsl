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
#if ROWS == ragged
@group(0) @binding(0) var<storage, read> a: array<TA>;
#else
@group(0) @binding(0) var<storage, read> a: array<vec4<u32>>;
#endif
@group(0) @binding(4) var<storage, read> bias: array<TO>;
#if SPLIT
@group(0) @binding(5) var<storage, read_write> out: array<TO>;
@group(0) @binding(6) var<storage, read_write> out_k: array<TO>;
@group(0) @binding(7) var<storage, read_write> out_v: array<TO>;
#else
@group(0) @binding(5) var<storage, read> aux: array<TO>;
@group(0) @binding(6) var<storage, read_write> out: array<TO>;
#endif

#if PAIR
// Rows of w alternate between gate and up: two neighbouring sums make one output, act(gate) · up.
fn finish_pair(gate: f32, up: f32, m: u32, n: u32) {
    let at = (params.out_row + m) * params.n_all + (params.n_first + n) / 2u;
    out[at] = TO(activate(gate, params.activation) * up);
}
#else
// Finishes and stores the sum for row `m` of a and row `n` of this part of w. The caller has checked both.
fn finish(sum: f32, m: u32, n: u32) {
    let column = params.n_first + n;
    var value = sum * params.scale;
    if (params.flags & 1u) != 0u { value += f32(bias[column]); }
    value = activate(value, params.activation);
#if SPLIT
    if column < params.q_end {
        out[(params.out_row + m) * params.q_end + column] = TO(value);
    } else if column < params.k_end {
        let width = params.k_end - params.q_end;
        out_k[(params.kv_row + m) * width + column - params.q_end] = TO(value);
    } else {
        let width = params.n_all - params.k_end;
        out_v[(params.kv_row + m) * width + column - params.k_end] = TO(value);
    }
#else
    if (params.flags & 2u) != 0u { value += f32(aux[m * params.n_all + column]); }
    out[(params.out_row + m) * params.n_all + column] = TO(value);
#endif
}
#endif

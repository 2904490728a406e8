// The end of differential attention: out = factor · norm(a1 − λ·a2) for the two results of each head. λ is given, or
// exp(λq1·λk1) − exp(λq2·λk2) + init.
// One workgroup a head of a token: its row has at most 64 vec4s, so each thread keeps one in registers between the
// difference and the norm's sum. λ's dot products are done anew by every workgroup: they are as short as a head is wide.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/reduce.wgsl"

struct Params {
    rows: u32,     // tokens × heads
    heads: u32,
    e4: u32,       // vec4s of a row
    d: u32,        // length of λ's vectors, 0 if λ is given
    step: u32,     // from the λ, or vectors, of a head to the next
    norm: u32,     // 0 none, 1 without weights, 2 with weights
    init: f32,
    eps: f32,
    factor: f32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> parts: array<UNIT>;
@group(0) @binding(1) var<storage, read> lambda_q1: array<f32>;   // or λ itself
@group(0) @binding(2) var<storage, read> lambda_k1: array<f32>;
@group(0) @binding(3) var<storage, read> lambda_q2: array<f32>;
@group(0) @binding(4) var<storage, read> lambda_k2: array<f32>;
@group(0) @binding(5) var<storage, read> weight: array<UNIT>;
@group(0) @binding(6) var<storage, read_write> out: array<UNIT>;

fn lambda(head: u32, lane: Lane) -> f32 {
    let first = head * params.step;
    if params.d == 0u { return lambda_q1[first]; }
    var dot_1 = 0.0;
    var dot_2 = 0.0;
    for (var i = first + lane.thread; i < first + params.d; i += THREADS) {
        dot_1 += lambda_q1[i] * lambda_k1[i];
        dot_2 += lambda_q2[i] * lambda_k2[i];
    }
    return exp(workgroup_sum(dot_1, lane)) - exp(workgroup_sum(dot_2, lane)) + params.init;
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let row = group_index(place.group, place.groups);
    if row >= params.rows { return; }
    let inside = lane.thread < params.e4;
    let column = min(lane.thread, params.e4 - 1u);
    let at = 2u * row * params.e4 + column;
    let other = vec4<f32>(parts[at + params.e4]);
    var value = vec4<f32>(parts[at]) - lambda(row % params.heads, lane) * other;
    if params.norm > 0u {
        let squares = select(0.0, dot(value, value), inside);
        value *= inverseSqrt(workgroup_sum(squares, lane) / f32(4u * params.e4) + params.eps);
        if params.norm == 2u { value *= vec4<f32>(weight[column]); }
    }
    if inside { out[row * params.e4 + column] = UNIT(params.factor * value); }
}

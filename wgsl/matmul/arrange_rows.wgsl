// out = the activations a[M,K] as halves, in the order in which the lanes of the Spirv tier take them (common/coop_walk_fragments.wgsl).
// A unit is eight halves, what a lane loads at once. Blocks of eight rows follow each other; in a block slices of 4 · EACH columns; in
// a slice EACH / 8 times the units of 32 lanes. Lane 4i + j has row i of the block and, one after the other, the eights of the
// jth EACH columns of the slice. Rows and columns past the end are zeros.
//!include "common/grid.wgsl"
//!include "common/bf16.wgsl"

struct Params {
    m: u32,
    k: u32,             // a multiple of 8
    padded_k: u32,      // a multiple of 4 · EACH
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;

struct Eight { lo: vec4<f32>, hi: vec4<f32> }
//!include "common/rows.wgsl"
//!include "common/fours_apart.wgsl"

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // A block has as many units as columns.
    let unit = group_index(group, groups) * THREADS + thread;
    let block = unit / params.padded_k;
    if block * 8u >= params.m { return; }
    let at = unit % params.padded_k;
    let lane = at % 32u;
    let row = block * 8u + lane / 4u;
    let c = (at / (4u * EACH) * 4u + lane % 4u) * EACH + at % (4u * EACH) / 32u * 8u;
    let x = halves(load_eight(min(row, params.m - 1u), c), c);
    out[unit] = select(vec4<u32>(), in_order(x), row < params.m);
}

// The bits of eight halves; past the row's end zeros.
fn halves(raw: RawEight, c: u32) -> vec4<u32> {
#if TA == f16
    return kept(raw, c);
#else
    // bf16 has a wider range.
    let x = widen(raw, c);
    let lo = clamp(x.lo, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    let hi = clamp(x.hi, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    return vec4<u32>(pack2x16float(lo.xy), pack2x16float(lo.zw), pack2x16float(hi.xy), pack2x16float(hi.zw));
#endif
}

// PAIRED: as half_order() of common/weight/halves.wgsl has them, 0, 2, 1, 3, 4, 6, 5, 7 of packets of 16 and 0, 4, 1, 5, 2, 6, 3, 7 of others.
fn in_order(x: vec4<u32>) -> vec4<u32> {
#if PAIRED
#if EACH == 16
    return fours_apart(x.xzyw);
#else
    return fours_apart(x);
#endif
#else
    return x;
#endif
}

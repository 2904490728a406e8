// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) on cooperative matrices of side SIDE: f16 operands, f32 accumulators. A workgroup of
// GRID_M × GRID_N × GRID_K subgroups owns a TILE_M × TILE_N tile of out, each subgroup FRAG_M × FRAG_N matrices of it for one of
// GRID_K slices of each step of K; the slices' sums are added at the end, in their order. Per step of TILE_K all threads decode w
// and copy a into f16 tiles in workgroup memory (rows padded by 8 halves against bank conflicts), while the loads of the next
// DEPTH steps are in flight. Loads are issued without any condition (indices are clamped): a branch around them costs 45 % on
// NVIDIA. There is one pair of tiles and two barriers a step, and a second workgroup on the same core works while this one
// waits; two pairs would take the room that it needs. For few rows of a and quantised w each subgroup has a pair of its own and no
// barrier. In the Spirv tier there are no tiles at all (FRAGMENTS). docs/performance.md has what else was tried.
enable f16;
enable wgpu_cooperative_matrix;
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"
//!include "common/coop_product.wgsl"
//!include "common/scaled_weights.wgsl"

fn fetch_packet(row: u32, k: u32) -> Packet {
    return load_packet(row, min(k / PACKET, params.packets - 1u));
}

#if HALVES
fn fetch_affine(row: u32, k: u32) -> Affine {
    let group = scale_group(k);
#if SCALE_FORMAT == f16
    let scale = scales[row * params.groups + group];
#else
    let scale = load_scale(row, group);
#endif
#if STORED_ZEROS
    return Affine(scale, f16(load_zero(row, group)));
#else
    return scale;
#endif
}
#else
fn fetch_affine(row: u32, k: u32) -> Affine {
    let group = scale_group(k);
    let scale = load_scale(row, group);
    return vec2<f32>(scale * CODE_UNIT, -scale * load_zero(row, group));
}
#endif

#if !FRAGMENTS
fn put_w(at: u32, packet: Packet, chunk: u32, affine: Affine) {
    let w = weights(packet, chunk, ready(affine));
    store_w(at, w.lo, w.hi);
}
#endif

// One row on matrices, of rows of w with EACH blocks for each subgroup:
// out[1,N] = epilogue(a[1,K] · w[N,K]ᵀ) on cooperative matrices, block by block (common/fragment_block.wgsl). A tile is 16 rows of w.
// A subgroup has EACH blocks of every tile, always of the same columns of a. The compiler issues loads of w a block ahead: earlier ones,
// that it cannot delay, were slower. Workgroups stay: each takes every so many-th tile, at most MOST_TILES, and brings their sums
// together at the end.
enable f16;
enable wgpu_cooperative_matrix;
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"
//!include "common/coop_matrix.wgsl"
//!include "common/fragment.wgsl"
//!include "common/bits_as_halves.wgsl"
//!include "common/fragment_block.wgsl"
//!include "common/touch.wgsl"

const SUBGROUPS = THREADS / 32u;
const X_BLOCK = BLOCK * CHUNKS; // an eight of activations for each lane
const X_ROOM = EACH * X_BLOCK + CHUNKS; // and a packet of zeros

var<workgroup> x: array<vec4<u32>, SUBGROUPS * X_ROOM>;
//!include "common/kept_sums.wgsl"

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    //!include "common/own_tiles.wgsl"

#for h 2
    let touched_{h} = first_block(index, {h}u, lane);
#endfor
    let x_first = lane.subgroup * X_ROOM;
#for e EACH
    let packet_{e} = ({e}u * SUBGROUPS + lane.subgroup) * BLOCK;
    let column_{e} = (packet_{e} * CHUNKS + lane.subgroup_lane) * 8u;
    let raw_{e} = select(vec4<u32>(), load_eight(0u, column_{e}), column_{e} < params.k);
    x[x_first + {e}u * X_BLOCK + lane.subgroup_lane] = bare_order(raw_{e});
#if INTEGERS
    let eight_{e} = widen(raw_{e}, column_{e});
    let four_{e} = eight_{e}.lo + eight_{e}.hi;
    let one_{e} = (four_{e}.x + four_{e}.y) + (four_{e}.z + four_{e}.w);
    let two_{e} = one_{e} + subgroupShuffleXor(one_{e}, 1u);
    let all_{e} = FIXED_ZERO / CODE_UNIT * (two_{e} + subgroupShuffleXor(two_{e}, 2u));
#for p 2
    let zero_{e}_{p} = subgroupShuffle(all_{e}, (2u * own.y + {p}u) * CHUNKS);
#endfor
#endif
#endfor
    let clears = (lane.subgroup_lane < CHUNKS) | never(touched_0 | touched_1);
    if clears { x[x_first + EACH * X_BLOCK + lane.subgroup_lane % CHUNKS] = vec4<u32>(); }
    subgroupBarrier();
#for e EACH
    let places_{e} = places_of(packet_{e}, own);
    let x_{e} = x_first + select(EACH * BLOCK, {e}u * BLOCK + own.x, own.y == own.x % 4u) * CHUNKS;
#endfor

    for (var t = 0u; t < own_tiles; t++) {
        let first = (index + t * groups) * SIDE;
#for e EACH
        let block_{e} = ask(first, places_{e}, own);
#endfor
#for h 2
        let ahead_{h} = first_block(index + min(t + 1u, own_tiles - 1u) * groups, {h}u, lane);
#endfor
        var sums = vec2<f32>();
#for e EACH
        sums = take(sums, block_{e}, Eights(
#for c PACKET_CHUNKS
            x[x_{e} + {c}u],
#endfor
#if INTEGERS
            vec2<f32>(zero_{e}_0, zero_{e}_1),
#else
            vec2<f32>(),
#endif
        ), first, places_{e}, own);
#endfor
        let sum = sum_of_row(sums, block_0, own.y);
        let stores = (own.y < 2u) | never(ahead_0 | ahead_1);
        if stores { partial[lane.subgroup * SUMS_ROOM + t * SIDE + own.y * 8u + own.x] = sum; }
    }
    workgroupBarrier();
    finish_kept(lane.thread, index, groups, own_tiles);
}

// A word of every 32 bytes of eight rows of a tile's first block, for the caches' sake: those of the first tile are asked for before the
// activations, and those of the next one before the work on this. INT4, with less work to a word, gains nothing by them and goes without.
fn first_block(tile: u32, half: u32, lane: Lane) -> u32 {
#if INTEGERS
    return 0u;
#else
    let row = min(tile * SIDE + half * 8u + lane.subgroup_lane / 4u, params.n - 1u);
    let packet = min(lane.subgroup * BLOCK + lane.subgroup_lane % 4u * 2u, params.packets - 1u);
    return w[row * params.packets + packet].x;
#endif
}

// With BYTES this file is common/gemv_bytes.wgsl, with BOOK common/gemv_pairs.wgsl, which have no matrices. Without:
// out[1,N] = epilogue(a[1,K] · w[N,K]ᵀ) on cooperative matrices of what each thread holds (common/fragment.wgsl): a code is no more than masked,
// as its bits are the half that matrices take. A tile is 16 rows of w. Four neighbouring lanes hold four neighbouring packets of a row, in A.
// B has a column for each packet, with zeros where it meets the others, so that sums under different scales stay apart: eight
// columns for the eight packets of a block, of which two matrices A hold four each. Where one of these meets the columns of the
// other, what comes out is not used.
// A subgroup has EACH blocks of every tile, always of the same columns of a. The compiler issues loads of w a block ahead: earlier ones,
// that it cannot delay, were slower. Workgroups stay: each takes every so many-th tile, at most MOST_TILES, and brings their sums
// together at the end.
#if BYTES
//!include "common/gemv_bytes.wgsl"
#elif BOOK
//!include "common/gemv_pairs.wgsl"
#else
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
//!include "common/touch.wgsl"

const BLOCK = 8u; // packets of a row
const SUBGROUPS = THREADS / 32u;
const X_BLOCK = BLOCK * CHUNKS; // an eight of activations for each lane
const X_ROOM = EACH * X_BLOCK + CHUNKS; // and a packet of zeros
const STEP = SIDE;
const SUM_UNIT = CODE_UNIT;

var<workgroup> x: array<vec4<u32>, SUBGROUPS * X_ROOM>;
//!include "common/kept_sums.wgsl"

// Where the scale of an even packet is, and those of it and the next one.
fn scales_at(row: u32, packet: u32) -> u32 {
    return row * params.groups + scale_group(packet * PACKET);
}
fn two_scales(word: u32, at: u32) -> vec2<f32> {
#if SCALE_PAIRS
    return unpack2x16float(word);
#else
    return vec2<f32>(half_of(word, at));
#endif
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    // group_index() and a count of groups written out: naga takes the result of a call for non-uniform.
    let index = place.group.y * place.groups.x + place.group.x;
    let groups = place.groups.x * place.groups.y;
    let tiles = (params.n + SIDE - 1u) / SIDE;
    let own_tiles = (tiles + groups - 1u - index) / groups;
    let i = lane.subgroup_lane / 4u;
    let j = lane.subgroup_lane % 4u;

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
    let zero_{e}_{p} = subgroupShuffle(all_{e}, (2u * j + {p}u) * CHUNKS);
#endfor
#endif
#endfor
    let clears = (lane.subgroup_lane < CHUNKS) | never(touched_0 | touched_1);
    if clears { x[x_first + EACH * X_BLOCK + lane.subgroup_lane % CHUNKS] = vec4<u32>(); }
    subgroupBarrier();
#for e EACH
    let x_{e} = x_first + select(EACH * BLOCK, {e}u * BLOCK + i, j == i % 4u) * CHUNKS;
    // Past the end of a row the last packet stands for those that are not there.
#for s 2
    let own_{e}_{s} = min(packet_{e} + {s}u * 4u + j, params.packets - 1u);
#endfor
    let pair_{e} = min(packet_{e} + 2u * j, (params.packets - 1u) & ~1u);
#endfor
    let zeros = vec4<f16>();

    for (var t = 0u; t < own_tiles; t++) {
        let first = (index + t * groups) * SIDE;
#for h 2
        let row_{h} = min(first + {h}u * 8u + i, params.n - 1u); // past the end: computed, not stored
        var sum_{h} = 0.0;
#endfor
#for e EACH
#for h 2
#for s 2
        let w_{e}_{h}_{s} = load_packet(row_{h}, own_{e}_{s});
#endfor
        let scale_{e}_{h} = scales[scales_at(row_{h}, pair_{e}) / 2u];
#endfor
#endfor
#for h 2
        let ahead_{h} = first_block(index + min(t + 1u, own_tiles - 1u) * groups, {h}u, lane);
#endfor
#for e EACH
        {
#for s 2
            var low_{s} = MatC();
#if INTEGERS
            var high_{s} = MatC();
#endif
#endfor
#for c PACKET_CHUNKS
            {
                let eight = x[x_{e} + {c}u];
                let x_low = fragment_b(four_halves(eight.x, eight.y), zeros);
                let x_high = fragment_b(four_halves(eight.z, eight.w), zeros);
#for s 2
                let near_{s} = bare_halves(w_{e}_0_{s}, {c}u);
                let far_{s} = bare_halves(w_{e}_1_{s}, {c}u);
#endfor
#for s 2
                let w_low_{s} = fragment_a(four_halves(near_{s}.x, near_{s}.y), four_halves(far_{s}.x, far_{s}.y));
                low_{s} = coopMultiplyAdd(w_low_{s}, x_low, low_{s});
#endfor
#for s 2
                let w_high_{s} = fragment_a(four_halves(near_{s}.z, near_{s}.w), four_halves(far_{s}.z, far_{s}.w));
#if INTEGERS
                high_{s} = coopMultiplyAdd(w_high_{s}, x_high, high_{s});
#else
                low_{s} = coopMultiplyAdd(w_high_{s}, x_high, low_{s});
#endif
#endfor
            }
#endfor
#for s 2
            let sums_{s} = elements_of(low_{s});
#if INTEGERS
            let more_{s} = elements_of(high_{s});
#endif
#endfor
            // A lane has the sums of packets 2j and 2j + 1 of the block.
#for h 2
            let scales_{h} = two_scales(scale_{e}_{h}, scales_at(row_{h}, pair_{e}));
#for p 2
            {
                var part = select(sums_0[{h} * 4 + {p}], sums_1[{h} * 4 + {p}], j >= 2u);
#if INTEGERS
                part += select(more_0[{h} * 4 + {p}], more_1[{h} * 4 + {p}], j >= 2u) / HIGH - zero_{e}_{p};
#endif
                sum_{h} += scales_{h}[{p}] * part;
            }
#endfor
#endfor
        }
#endfor
        // Of lanes j = 0 and 1 the first half of the rows and the second.
        let odd = (j & 1u) != 0u;
        let two = select(sum_0, sum_1, odd) + subgroupShuffleXor(select(sum_1, sum_0, odd), 1u);
        let four = two + subgroupShuffleXor(two, 2u);
        let stores = (j < 2u) | never(ahead_0 | ahead_1);
        if stores { partial[lane.subgroup * SUMS_ROOM + t * SIDE + j * 8u + i] = four; }
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
#endif

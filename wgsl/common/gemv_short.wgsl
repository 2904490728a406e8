// One row on matrices, of rows of w with a block for each subgroup: as in common/gemv_blocks.wgsl, but activations stay in registers.
// The blocks of a step are loaded while the step before is computed. Two steps a round, as copies from the next to the current block would wait
// for it; and whoever waits for one load of a loop waits for all that are under way, so the next ones are asked for when the current ones are
// there, and not before (docs/performance.md, "Loads that are put off").
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
//!include "common/asked.wgsl"
//!include "common/touch.wgsl"

const SUBGROUPS = THREADS / 32u;
//!include "common/kept_sums.wgsl"

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    //!include "common/own_tiles.wgsl"
    let packet = lane.subgroup * BLOCK;
    let places = places_of(packet, own);
    let none = vec2<f32>();

#if TABLE
    // Before any load: behind those of the activations it costs 0.7 µs more.
    fill_pairs(lane.thread);
    workgroupBarrier();
#endif
    let column = (packet + own.x) * PACKET;
    let has = (own.y == own.x % 4u) & (column < params.k);
#for c PACKET_CHUNKS
    let raw_{c} = load_nth_eight(0u, select(0u, column, has), {c}u);
#endfor
    var even = ask(index * SIDE, places, own);
#for c PACKET_CHUNKS
    let x_{c} = select(vec4<u32>(), kept(raw_{c}, column + {c}u * 8u), has);
#endfor
    let x = Eights(bare_order(x_0), bare_order(x_1), bare_order(x_2), bare_order(x_3), zeros_of(x_0, x_1, x_2, x_3, own.y));

    let last = own_tiles - 1u;
    for (var step = 0u; step < own_tiles; step += 2u) {
        let never_yet = step >= params.n; // but the compiler does not know
        let odd_at = (index + min(step + 1u, last) * groups) * SIDE;
        let odd = ask(odd_at, places, own);
        if never_yet { partial[0] = used(words_of(odd)); }
        let even_at = (index + step * groups) * SIDE;
        keep(sum_of_row(take(none, even, x, even_at, places, own), even, own.y), step, lane.subgroup, own);
        if step + 1u >= own_tiles { break; }
        even = ask((index + min(step + 2u, last) * groups + u32(never(odd.w_0_0.x))) * SIDE, places, own);
        if never_yet { partial[0] = used(words_of(even)); }
        keep(sum_of_row(take(none, odd, x, odd_at, places, own), odd, own.y), step + 1u, lane.subgroup, own);
        // Copies into `even`, if the compiler makes any, stay behind this.
        if never_yet { partial[1] = used(step); }
    }
    workgroupBarrier();
    finish_kept(lane.thread, index, groups, own_tiles);
}

fn words_of(b: Block) -> u32 {
    let w = b.w_0_0 ^ b.w_0_1 ^ b.w_1_0 ^ b.w_1_1;
    let all = w.x ^ w.y ^ w.z ^ w.w ^ b.scale_0 ^ b.scale_1;
#if SCALE_FORMAT == e4m3
    return all ^ b.tensor;
#else
    return all;
#endif
}

fn keep(sum: f32, step: u32, subgroup: u32, own: vec2<u32>) {
    if own.y < 2u { partial[subgroup * SUMS_ROOM + step * SIDE + own.y * 8u + own.x] = sum; }
}

// Of packets 2j and 2j + 1, of which one lane each has the activations.
fn zeros_of(x_0: vec4<u32>, x_1: vec4<u32>, x_2: vec4<u32>, x_3: vec4<u32>, j: u32) -> vec2<f32> {
    var zeros = vec2<f32>();
#if INTEGERS
#for c PACKET_CHUNKS
    let eight_{c} = widen(x_{c}, 0u);
    let four_{c} = eight_{c}.lo + eight_{c}.hi;
#endfor
    let four = (four_0 + four_1) + (four_2 + four_3);
    let all = FIXED_ZERO / CODE_UNIT * ((four.x + four.y) + (four.z + four.w));
#for p 2
    zeros[{p}] = subgroupShuffle(all, (2u * j + {p}u) * 4u + (2u * j + {p}u) % 4u);
#endfor
#endif
    return zeros;
}

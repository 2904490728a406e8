// Two to ROWS_A rows of a on matrices, of rows of w with a block of eight packets for each subgroup. As in common/gemv_short.wgsl workgroups and
// activations stay, and blocks are loaded while those of the step before are computed; see there why it is written so. But here B has a column for
// each row of a, so packets under different scales meet in a sum and are scaled before: 16 rows of w times eight rows of a are a tile.
// Tiles' sums wait in SLOTS places for those of the other subgroups.
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
//!include "common/half_activations.wgsl"
//!include "common/scaled_weights.wgsl"
//!include "common/asked.wgsl"
//!include "common/touch.wgsl"

const SUBGROUPS = THREADS / 32u;
const BLOCK = 8u; // packets of a row
const ROW_ROOM = 20u; // of a tile's 16 sums of a row of a: lanes store to different banks
const SLOT_ROOM = ROWS_A * ROW_ROOM;
var<workgroup> partial: array<f32, SUBGROUPS * SLOTS * SLOT_ROOM>;

// What a lane has: packets j and j + 4 of rows i and i + 8 of w, and of each the word with its SPANS scales.
struct Block {
#for h 2
#for s 2
    w_{h}_{s}: Packet,
    scales_{h}_{s}: u32,
#endfor
#endfor
#if SCALE_FORMAT == e4m3
#for h 2
    tensor_{h}: u32, // the scale of all of the row
#endfor
#endif
}
// And the same packets of row i of a.
struct Activations {
#for s 2
#for g SPANS
#for c SPAN_CHUNKS
    x_{s}_{g}_{c}: HalfEight,
#endfor
#endfor
#endfor
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    //!include "common/own_tiles.wgsl"
    let column = (lane.subgroup * BLOCK + own.y) * PACKET;

    // Rows past the last one repeat it, and are not stored.
    let row = min(own.x, params.m - 1u);
#for s 2
    let has_{s} = column + {s}u * 4u * PACKET < params.k;
    let from_{s} = select(0u, column + {s}u * 4u * PACKET, has_{s});
#for c PACKET_CHUNKS
    let raw_{s}_{c} = load_nth_eight(row, from_{s}, {c}u);
#endfor
#endfor
    var even = ask(index * SIDE, column, own.x);
#for s 2
#for c PACKET_CHUNKS
    let x_{s}_{c} = half_activations(widen(select(vec4<u32>(), raw_{s}_{c}, has_{s}), from_{s} + {c}u * 8u));
#endfor
#endfor
    let x = Activations(x_0_0, x_0_1, x_0_2, x_0_3, x_1_0, x_1_1, x_1_2, x_1_3);

    let last = own_tiles - 1u;
    let at = lane.subgroup * SLOTS * SLOT_ROOM;
    for (var step = 0u; step < own_tiles; step += 2u) {
        let never_yet = step >= params.n; // but the compiler does not know
        let odd_at = (index + min(step + 1u, last) * groups) * SIDE;
        let odd = ask(odd_at, column, own.x);
        if never_yet { partial[0] = used(words_of(odd)); }
        let even_at = (index + step * groups) * SIDE;
        keep(take(even, x, even_at, column, own.x), at + step % SLOTS * SLOT_ROOM, own);
        if step + 1u >= own_tiles { break; }
        even = ask((index + min(step + 2u, last) * groups + u32(never(odd.w_0_0.x))) * SIDE, column, own.x);
        if never_yet { partial[0] = used(words_of(even)); }
        keep(take(odd, x, odd_at, column, own.x), at + (step + 1u) % SLOTS * SLOT_ROOM, own);
        // Copies into `even`, if the compiler makes any, stay behind this.
        if never_yet { partial[1] = used(step); }
        if (step + 2u) % SLOTS == 0u {
            workgroupBarrier();
            finish_slots(SLOTS, index + (step + 2u - SLOTS) * groups, groups, lane.thread);
            workgroupBarrier();
        }
    }
    workgroupBarrier();
    finish_slots(own_tiles % SLOTS, index + (own_tiles - own_tiles % SLOTS) * groups, groups, lane.thread);
}

// Rows past the end are computed, not stored.
fn row_of(first: u32, h: u32, i: u32) -> u32 { return min(first + h * 8u + i, params.n - 1u); }
fn scale_at(row: u32, column: u32) -> u32 { return row * params.groups + scale_group(column); }

fn ask(first: u32, column: u32, i: u32) -> Block {
#for h 2
    let row_{h} = row_of(first, {h}u, i);
#for s 2
    let column_{h}_{s} = column + {s}u * 4u * PACKET;
    let w_{h}_{s} = load_packet(row_{h}, min(column_{h}_{s} / PACKET, params.packets - 1u));
    let scales_{h}_{s} = scales[scale_at(row_{h}, column_{h}_{s}) / WORD_SCALES];
#endfor
#endfor
#if SCALE_FORMAT == e4m3
    return Block(w_0_0, scales_0_0, w_0_1, scales_0_1, w_1_0, scales_1_0, w_1_1, scales_1_1, zeros[row_0], zeros[row_1]);
#else
    return Block(w_0_0, scales_0_0, w_0_1, scales_0_1, w_1_0, scales_1_0, w_1_1, scales_1_1);
#endif
}

fn words_of(b: Block) -> u32 {
    let w = b.w_0_0 ^ b.w_0_1 ^ b.w_1_0 ^ b.w_1_1;
    let all = w.x ^ w.y ^ w.z ^ w.w ^ b.scales_0_0 ^ b.scales_0_1 ^ b.scales_1_0 ^ b.scales_1_1;
#if SCALE_FORMAT == e4m3
    return all ^ b.tensor_0 ^ b.tensor_1;
#else
    return all;
#endif
}

// What turns codes into weights: the scale at `at`, in its word, times that of the tensor.
fn affine_of(word: u32, at: u32, tensor: f32) -> Affine {
#if SCALE_FORMAT == f16
    return two_halves(word >> (at % 2u * 16u)).x;
#else
    return scale_of(word, at) * tensor;
#endif
}

// Rows i and i + 8 of the tile from row `first` on, of each the rows 2j and 2j + 1 of a.
fn take(b: Block, x: Activations, first: u32, column: u32, i: u32) -> vec4<f32> {
    let none = vec4<f16>();
    var low = MatC();
    var high = MatC();
#for h 2
#if SCALE_FORMAT == e4m3
    let tensor_{h} = bitcast<f32>(b.tensor_{h});
#else
    let tensor_{h} = 1.0;
#endif
#endfor
#for s 2
#for h 2
    let at_{h}_{s} = scale_at(row_of(first, {h}u, i), column + {s}u * 4u * PACKET);
#endfor
#for g SPANS
    let near_{s}_{g} = ready(affine_of(b.scales_0_{s}, at_0_{s} + {g}u, tensor_0));
    let far_{s}_{g} = ready(affine_of(b.scales_1_{s}, at_1_{s} + {g}u, tensor_1));
#for c SPAN_CHUNKS
    {
        let near = weights(b.w_0_{s}, {g}u * SPAN_CHUNKS + {c}u, near_{s}_{g});
        let far = weights(b.w_1_{s}, {g}u * SPAN_CHUNKS + {c}u, far_{s}_{g});
        low = coopMultiplyAdd(fragment_a(near.lo, far.lo), fragment_b(x.x_{s}_{g}_{c}.lo, none), low);
        high = coopMultiplyAdd(fragment_a(near.hi, far.hi), fragment_b(x.x_{s}_{g}_{c}.hi, none), high);
    }
#endfor
#endfor
#endfor
    let lo = elements_of(low);
    let hi = elements_of(high);
    return vec4(lo[0] + hi[0], lo[1] + hi[1], lo[4] + hi[4], lo[5] + hi[5]);
}

fn keep(sums: vec4<f32>, at: u32, own: vec2<u32>) {
    if own.y * 2u >= ROWS_A { return; }
    let to = at + own.y * 2u * ROW_ROOM + own.x;
    partial[to] = sums.x;
    partial[to + 8u] = sums.z;
    partial[to + ROW_ROOM] = sums.y;
    partial[to + ROW_ROOM + 8u] = sums.w;
}

// Brings the sums of so many tiles together, of which `first` is the first and every so many-th is the next, and finishes them.
fn finish_slots(slots: u32, first: u32, groups: u32, thread: u32) {
    for (var v = thread * SUMS; v < slots * params.m * SIDE; v += THREADS * SUMS) {
        let row = v / SIDE % params.m;
        let slot = v / SIDE / params.m;
        let n = (first + slot * groups) * SIDE + v % SIDE;
        if n >= params.n { continue; }
        let at = slot * SLOT_ROOM + row * ROW_ROOM + v % SIDE;
#if SUMS == 4
        finish(vec4<f32>(sum_of(at), sum_of(at + 1u), sum_of(at + 2u), sum_of(at + 3u)), row, n);
#elif SUMS == 2
        finish(vec2<f32>(sum_of(at), sum_of(at + 1u)), row, n);
#else
        finish(sum_of(at), row, n);
#endif
    }
}

// Over the subgroups.
fn sum_of(at: u32) -> f32 {
    var sum = 0.0;
    for (var s = 0u; s < SUBGROUPS; s++) { sum += partial[s * SLOTS * SLOT_ROOM + at]; }
    return sum;
}

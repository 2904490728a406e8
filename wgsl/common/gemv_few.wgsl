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
//!include "common/half_activations.wgsl"
//!include "common/scaled_weights.wgsl"
//!include "common/asked.wgsl"
//!include "common/touch.wgsl"

const SUBGROUPS = THREADS / 32u;
const BLOCK = 8u; // packets of a row
const SPAN = PACKET / SPANS; // weights that share a scale
const ROW_ROOM = 20u; // of a tile's 16 sums of a row of a: lanes store to different banks
const SLOT_ROOM = ROWS_A * ROW_ROOM;
var<workgroup> partial: array<f32, SUBGROUPS * SLOTS * SLOT_ROOM>;

// What a lane has: packets j and j + 4 of rows i and i + 8 of w, and what SPAN weights share.
struct Block {
#for h 2
#for s 2
    w_{h}_{s}: Packet,
#for g SPANS
    affine_{h}_{s}_{g}: Affine,
#endfor
#endfor
#endfor
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
    // group_index() and a count of groups written out: naga takes the result of a call for non-uniform.
    let index = place.group.y * place.groups.x + place.group.x;
    let groups = place.groups.x * place.groups.y;
    let tiles = (params.n + SIDE - 1u) / SIDE;
    let steps = (tiles + groups - 1u - index) / groups;
    let own = vec2<u32>(lane.subgroup_lane / 4u, lane.subgroup_lane % 4u);
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

    let last = steps - 1u;
    let at = lane.subgroup * SLOTS * SLOT_ROOM;
    for (var step = 0u; step < steps; step += 2u) {
        let never_yet = step >= params.n; // but the compiler does not know
        let odd = ask((index + min(step + 1u, last) * groups) * SIDE, column, own.x);
        if never_yet { partial[0] = used(words_of(odd)); }
        keep(take(even, x), at + step % SLOTS * SLOT_ROOM, own);
        if step + 1u >= steps { break; }
        even = ask((index + min(step + 2u, last) * groups + u32(never(odd.w_0_0.x))) * SIDE, column, own.x);
        if never_yet { partial[0] = used(words_of(even)); }
        keep(take(odd, x), at + (step + 1u) % SLOTS * SLOT_ROOM, own);
        // Copies into `even`, if the compiler makes any, stay behind this.
        if never_yet { partial[1] = used(step); }
        if (step + 2u) % SLOTS == 0u {
            workgroupBarrier();
            finish_slots(SLOTS, index + (step + 2u - SLOTS) * groups, groups, lane.thread);
            workgroupBarrier();
        }
    }
    workgroupBarrier();
    finish_slots(steps % SLOTS, index + (steps - steps % SLOTS) * groups, groups, lane.thread);
}

fn ask(first: u32, column: u32, i: u32) -> Block {
#for h 2
    let row_{h} = min(first + {h}u * 8u + i, params.n - 1u); // past the end: computed, not stored
#for s 2
    let w_{h}_{s} = fetch_packet(row_{h}, column + {s}u * 4u * PACKET);
#for g SPANS
    let affine_{h}_{s}_{g} = fetch_affine(row_{h}, column + {s}u * 4u * PACKET + {g}u * SPAN);
#endfor
#endfor
#endfor
#if SPANS == 1
    return Block(w_0_0, affine_0_0_0, w_0_1, affine_0_1_0, w_1_0, affine_1_0_0, w_1_1, affine_1_1_0);
#else
    return Block(
        w_0_0, affine_0_0_0, affine_0_0_1, w_0_1, affine_0_1_0, affine_0_1_1,
        w_1_0, affine_1_0_0, affine_1_0_1, w_1_1, affine_1_1_0, affine_1_1_1,
    );
#endif
}

fn words_of(b: Block) -> u32 {
    let w = b.w_0_0 ^ b.w_0_1 ^ b.w_1_0 ^ b.w_1_1;
    var all = w.x ^ w.y ^ w.z ^ w.w;
#for h 2
#for s 2
#for g SPANS
    all ^= u32(b.affine_{h}_{s}_{g});
#endfor
#endfor
#endfor
    return all;
}

// Rows i and i + 8 of the tile, of each the rows 2j and 2j + 1 of a.
fn take(b: Block, x: Activations) -> vec4<f32> {
    let none = vec4<f16>();
    var low = MatC();
    var high = MatC();
#for s 2
#for g SPANS
    let near_{s}_{g} = ready(b.affine_0_{s}_{g});
    let far_{s}_{g} = ready(b.affine_1_{s}_{g});
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

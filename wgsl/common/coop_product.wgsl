// The walk of a product on cooperative matrices: see matmul/gemm_coop.wgsl for its plan. What includes this has before it the
// bindings, load_eight() and widen() of a, and finish_rows(); behind it
//     fetch_packet(row, k)      W_EACH weights of a row of w, as they come
//     fetch_affine(row, k)      what SPAN of them share, of type Affine
//     put_w(at, packet, chunk, affine)      eight of them decoded into the tile of w
//     ready(affine), weights(packet, chunk, ready)      for FRAGMENTS, the same in registers
// BATCHED: of params.batches products, and `batch` is set to that of the workgroup first. KN: w is [K, N], and so is its tile;
// fetch_packet(row, k) gives eight of column k, from this row of wᵀ on. Tiles of a subgroup's own are not for KN.
//!include "common/coop_matrix.wgsl"

const TILE_M = GRID_M * FRAG_M * SIDE;
const TILE_N = GRID_N * FRAG_N * SIDE;
// Tile rows that are walked together.
#if BATCHED
const BAND = 8u;
#else
const BAND = 16u;
#endif
const STRIDE = TILE_K + 8u; // halves from one tile row to the next
const SUBGROUPS = GRID_M * GRID_N * GRID_K;
const LANES = THREADS / SUBGROUPS;
const APART = GRID_K * LANES * SUMS / SIDE; // from a row of a thread's outputs to the next
const TILES = select(1u, GRID_K, OWN); // of a and of w
const PART_ROWS = TILE_N / W_PARTS; // of the tile of w
#if KN
const STRIDE_W = TILE_N + 8u;
const SIZE_W = TILE_K * STRIDE_W;
#else
const STRIDE_W = STRIDE;
const SIZE_W = TILES * PART_ROWS * STRIDE_W;
#endif
// A thread fetches A_ITEMS times eight activations and W_ITEMS times W_EACH weights (of one packet) per step, or so many for each
// part of a subgroup's own; SPAN weights share a scale.

#if FRAGMENTS
//!include "common/fragment.wgsl"
//!include "common/touch.wgsl"
// Metal's loads want scalar arrays; elsewhere vectors make the stores wide.
#elif VECTOR_TILES
var<workgroup> tile_a: array<vec4<f16>, TILES * TILE_M * A_STRIDE / 4u>;
var<workgroup> tile_w: array<vec4<f16>, SIZE_W / 4u>;
const UNIT = 4u;
#else
var<workgroup> tile_a: array<f16, TILES * TILE_M * A_STRIDE>;
var<workgroup> tile_w: array<f16, SIZE_W>;
const UNIT = 1u;
#endif
var<workgroup> scratch: array<f32, SUBGROUPS * ROUND * SIDE * SIDE>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
#if BOOK
    fill_book(thread);
    workgroupBarrier();
#endif
    let tiles_m = (params.m + TILE_M - 1u) / TILE_M;
    let tiles_n = (params.n + TILE_N - 1u) / TILE_N;
    // group_index() written out: naga takes the result of a call for non-uniform and would reject the loads below.
    let index = group.y * groups.x + group.x;
#if BATCHED
    if index >= params.batches * (tiles_m * tiles_n) { return; } // the fold rounded up
    batch = index / (tiles_m * tiles_n);
    let tile = index % (tiles_m * tiles_n);
#else
    if index >= tiles_m * tiles_n { return; }
    let tile = index;
#endif
    // Bands of tile rows, walked column by column: workgroups that run together share rows of a and of w in the L2.
    let band = tile / (BAND * tiles_n);
    let height = min(tiles_m - band * BAND, BAND);
    let m0 = (band * BAND + tile % (BAND * tiles_n) % height) * TILE_M;
    let n0 = (tile % (BAND * tiles_n) / height) * TILE_N;
    let frag_m = subgroup / GRID_N % GRID_M * FRAG_M * SIDE;
    let frag_n = (subgroup % GRID_N) * FRAG_N * SIDE;

#for i FRAG_M
#for h W_PARTS
#for j PART_FRAGS
    var sum_{i}_{h}{j} = MatC();
#endfor
#endfor
#endfor
#if FRAGMENTS
//!include "common/coop_walk_fragments.wgsl"
#elif OWN
//!include "common/coop_walk_own.wgsl"
#else
//!include "common/coop_walk.wgsl"
#endif
    // Matrices have no element access, so they pass through this subgroup's scratch on their way to the epilogue, ROUND at a time.
    let mine = subgroup * ROUND * SIDE * SIDE;
#for i FRAG_M
#if ROUND != 1
    workgroupBarrier();
#endif
#for h W_PARTS
#for j PART_FRAGS
    {
        const J = {h}u * PART_FRAGS + {j}u;
#if ROUND == 1
        workgroupBarrier();
        coopStoreT(sum_{i}_{h}{j}, &scratch[mine], SIDE);
        workgroupBarrier();
        flush(subgroup, 0u, m0 + frag_m + {i}u * SIDE, n0 + frag_n + J * SIDE, lane);
#else
        let to = mine + J * SIDE * SIDE;
        coopStoreT(sum_{i}_{h}{j}, &scratch[to], SIDE);
#endif
    }
#endfor
#endfor
#if ROUND != 1
    workgroupBarrier();
    for (var j = 0u; j < ROUND; j++) {
        flush(subgroup, j, m0 + frag_m + {i}u * SIDE, n0 + frag_n + j * SIDE, lane);
    }
#endif
#endfor
}

// Which row, and which of its `pieces` of `each` elements, a thread fetches. What eight neighbouring threads take decides the speed:
// their places in the padded tile must lie in different banks, and among such choices the fewest rows are best, since
// every line of the cache that is touched costs a look-up.
fn place(item: u32, pieces: u32, each: u32) -> vec2<u32> {
    let near = min(pieces, 64u / each); // pieces that fill the banks once
    let rows = 8u / near;
    let i = item / near % rows;
    let rest = item / 8u % pieces;
    let other = rest % near;
    // From one row of the tile to the next banks shift by 16 bytes, or by 80 where steps are short.
    let row = select(i % 2u * 4u + i / 2u + other * rows / 2u, other * rows + i, TILE_K >= 64u);
    return vec2<u32>(item / (8u * pieces) * 8u + row, rest / near * near + item % near);
}

// Finishes one matrix of outputs. A thread has SUMS neighbouring columns of every APARTth row; the subgroups that have sums of
// the matrix share its rows.
fn flush(subgroup: u32, round: u32, m0: u32, n0: u32, lane: u32) {
    let matrix = subgroup % (GRID_M * GRID_N);
    let unit = (subgroup / (GRID_M * GRID_N) * LANES + lane) * SUMS;
    let n = unit % SIDE;
    if n0 + n >= params.n { return; }
    for (var first = unit / SIDE; first < SIDE; first += 4u * APART) {
        let rows = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) * APART;
        var sums: array<vec4<f32>, SUMS>;
#for s SUMS
        let at_{s} = (matrix * ROUND + round) * SIDE * SIDE + min(rows, vec4<u32>(SIDE - 1u)) * SIDE + n + {s}u;
        sums[{s}] = vec4<f32>(sum_of(at_{s}.x), sum_of(at_{s}.y), sum_of(at_{s}.z), sum_of(at_{s}.w));
#endfor
        finish_rows(sums, select(vec4<u32>(params.m), m0 + rows, rows < vec4<u32>(SIDE)), n0 + n);
    }
}

// The sum over the slices of K of what the scratch of the first has here.
fn sum_of(at: u32) -> f32 {
    var sum = scratch[at];
    for (var s = 1u; s < GRID_K; s++) { sum += scratch[s * (GRID_M * GRID_N * ROUND * SIDE * SIDE) + at]; }
    return sum;
}

//!include "common/half_activations.wgsl"

#if FRAGMENTS
// What a lane has loaded of a, as it gives it to matrices.
#if ARRANGED
//!include "common/bits_as_halves.wgsl"
fn held(raw: vec4<u32>, c: u32) -> HalfEight {
    return HalfEight(four_halves(raw.x, raw.y), four_halves(raw.z, raw.w));
}
#else
fn held(raw: RawEight, c: u32) -> HalfEight { return half_activations(widen(raw, c)); }
#endif
#else
fn put_a(at: u32, x: Eight) {
    let values = half_activations(x);
#if VECTOR_TILES
    tile_a[at / 4u] = values.lo;
    tile_a[at / 4u + 1u] = values.hi;
#else
#for e 4
    tile_a[at + {e}u] = values.lo[{e}];
    tile_a[at + 4u + {e}u] = values.hi[{e}];
#endfor
#endif
}

fn store_w(at: u32, lo: vec4<f16>, hi: vec4<f16>) {
#if VECTOR_TILES
    tile_w[at / 4u] = lo;
    tile_w[at / 4u + 1u] = hi;
#else
#for e 4
    tile_w[at + {e}u] = lo[{e}];
    tile_w[at + 4u + {e}u] = hi[{e}];
#endfor
#endif
}
#endif

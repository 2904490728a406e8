// The walk of a product on cooperative matrices: see matmul/gemm_coop.wgsl for its plan. What includes this has before it the
// bindings, load_eight() and widen() of a, and finish_rows(); behind it
//     fetch_packet(row, k)      W_EACH weights of a row of w, as they come
//     fetch_affine(row, k)      what SPAN of them share, of type Affine
//     put_w(at, packet, chunk, affine)      eight of them decoded into the tile of w
//!include "common/coop_matrix.wgsl"

const TILE_M = GRID_M * FRAG_M * SIDE;
const TILE_N = GRID_N * FRAG_N * SIDE;
const STRIDE = TILE_K + 8u; // halves from one tile row to the next
const SUBGROUPS = GRID_M * GRID_N * GRID_K;
const LANES = THREADS / SUBGROUPS;
const APART = GRID_K * LANES * SUMS / SIDE; // from a row of a thread's outputs to the next
const SLICE = TILE_K / GRID_K;
const STEP = TILE_K * DEPTH;
const W_PIECES = TILE_K / W_EACH; // of a row of w in TILE_K
// A thread fetches A_ITEMS times eight activations and W_ITEMS times W_EACH weights (of one packet) per step; SPAN of these
// share a scale.

// Metal's loads want scalar arrays; elsewhere vectors make the stores wide.
#if VECTOR_TILES
var<workgroup> tile_a: array<vec4<f16>, TILE_M * STRIDE / 4u>;
var<workgroup> tile_w: array<vec4<f16>, TILE_N * STRIDE / 4u>;
const UNIT = 4u;
#else
var<workgroup> tile_a: array<f16, TILE_M * STRIDE>;
var<workgroup> tile_w: array<f16, TILE_N * STRIDE>;
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
    let tiles_m = (params.m + TILE_M - 1u) / TILE_M;
    let tiles_n = (params.n + TILE_N - 1u) / TILE_N;
    // group_index() written out: naga takes the result of a call for non-uniform and would reject the loads below.
    let tile = group.y * groups.x + group.x;
    if tile >= tiles_m * tiles_n { return; } // the fold rounded up
    // Bands of 8 tile rows, walked column by column: workgroups that run together share rows of a and of w in the L2.
    let band = tile / (8u * tiles_n);
    let height = min(tiles_m - band * 8u, 8u);
    let m0 = (band * 8u + tile % (8u * tiles_n) % height) * TILE_M;
    let n0 = (tile % (8u * tiles_n) / height) * TILE_N;
    let k_slice = subgroup / (GRID_M * GRID_N) * SLICE;
    let frag_m = subgroup / GRID_N % GRID_M * FRAG_M * SIDE;
    let frag_n = (subgroup % GRID_N) * FRAG_N * SIDE;

#for i FRAG_M
#for j FRAG_N
    var sum_{i}_{j} = MatC();
#endfor
#endfor
    // What this thread moves each step: where it comes from, where it goes.
#for t A_ITEMS
    let a_item_{t} = {t}u * THREADS + thread;
    let a_at_{t} = place(a_item_{t}, TILE_K / 8u, 8u);
    let a_row_{t} = min(m0 + a_at_{t}.x, params.m - 1u);
    let a_k_{t} = a_at_{t}.y * 8u;
    let a_to_{t} = a_at_{t}.x * STRIDE + a_k_{t};
#for d DEPTH
    var a_{t}_{d} = load_eight(a_row_{t}, {d}u * TILE_K + a_k_{t});
#endfor
#endfor
#for t W_ITEMS
    let w_item_{t} = {t}u * THREADS + thread;
    let w_at_{t} = place(w_item_{t}, W_PIECES, W_EACH);
    let w_row_{t} = min(n0 + w_at_{t}.x, params.n - 1u);
    let w_k_{t} = w_at_{t}.y * W_EACH;
    let w_to_{t} = w_at_{t}.x * STRIDE + w_k_{t};
#for d DEPTH
    var w_{t}_{d} = fetch_packet(w_row_{t}, {d}u * TILE_K + w_k_{t});
#for s SPANS
    var affine_{t}_{s}_{d} = fetch_affine(w_row_{t}, {d}u * TILE_K + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#endfor
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
#if DEPTH != 1
        // All loads for the next DEPTH steps at once, and none is looked at before: NVIDIA's warps tell six loads apart, and one
        // that waits for an old load waits for the young ones that share its mark.
#for d DEPTH
#for t A_ITEMS
        let next_a_{t}_{d} = load_eight(a_row_{t}, k0 + STEP + {d}u * TILE_K + a_k_{t});
#endfor
#for t W_ITEMS
        let next_w_{t}_{d} = fetch_packet(w_row_{t}, k0 + STEP + {d}u * TILE_K + w_k_{t});
#for s SPANS
        let next_affine_{t}_{s}_{d} = fetch_affine(w_row_{t}, k0 + STEP + {d}u * TILE_K + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#endfor
#endif
#for d DEPTH
        workgroupBarrier();
#for t A_ITEMS
        put_a(a_to_{t}, widen(a_{t}_{d}, k0 + {d}u * TILE_K + a_k_{t}));
#endfor
#for t W_ITEMS
#for s SPANS
#for h SPAN_CHUNKS
        put_w(
            w_to_{t} + {s}u * SPAN + {h}u * 8u,
            w_{t}_{d},
            (({d}u * TILE_K + w_k_{t}) % PACKET + {s}u * SPAN) / 8u + {h}u,
            affine_{t}_{s}_{d},
        );
#endfor
#endfor
#endfor
        workgroupBarrier();
#if DEPTH == 1
        // Loads for the next step; past the end of K they repeat the last ones.
#for t A_ITEMS
        a_{t}_0 = load_eight(a_row_{t}, k0 + STEP + a_k_{t});
#endfor
#for t W_ITEMS
        w_{t}_0 = fetch_packet(w_row_{t}, k0 + STEP + w_k_{t});
#for s SPANS
        affine_{t}_{s}_0 = fetch_affine(w_row_{t}, k0 + STEP + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#endif
        for (var in_slice = 0u; in_slice < SLICE; in_slice += SIDE) {
            let k = k_slice + in_slice;
#for j FRAG_N
            let at_b_{j} = ((frag_n + {j}u * SIDE) * STRIDE + k) / UNIT;
            let b_{j} = coopLoad<MatB>(&tile_w[at_b_{j}], STRIDE / UNIT);
#endfor
#for i FRAG_M
            let at_a_{i} = ((frag_m + {i}u * SIDE) * STRIDE + k) / UNIT;
            let a_mat_{i} = coopLoadT<MatA>(&tile_a[at_a_{i}], STRIDE / UNIT);
#for j FRAG_N
            sum_{i}_{j} = coopMultiplyAdd(a_mat_{i}, b_{j}, sum_{i}_{j});
#endfor
#endfor
        }
#endfor
#if DEPTH != 1
#for d DEPTH
#for t A_ITEMS
        a_{t}_{d} = next_a_{t}_{d};
#endfor
#for t W_ITEMS
        w_{t}_{d} = next_w_{t}_{d};
#for s SPANS
        affine_{t}_{s}_{d} = next_affine_{t}_{s}_{d};
#endfor
#endfor
#endfor
#endif
    }
    // Matrices have no element access, so they pass through this subgroup's scratch on their way to the epilogue, ROUND at a time.
    let mine = subgroup * ROUND * SIDE * SIDE;
#for i FRAG_M
#for r ROUNDS
    workgroupBarrier();
#if ROUND == 1
    coopStoreT(sum_{i}_{r}, &scratch[mine], SIDE);
#else
#for j FRAG_N
    {
        let to = mine + {j}u * SIDE * SIDE;
        coopStoreT(sum_{i}_{j}, &scratch[to], SIDE);
    }
#endfor
#endif
    workgroupBarrier();
    for (var j = 0u; j < ROUND; j++) {
        flush(subgroup, j, m0 + frag_m + {i}u * SIDE, n0 + frag_n + ({r}u * ROUND + j) * SIDE, lane);
    }
#endfor
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

fn put_a(at: u32, x: Eight) {
    let lo = vec4<f16>(half_range(x.lo));
    let hi = vec4<f16>(half_range(x.hi));
#if HALVES
    // In the order of half_weights().
    let first = vec4<f16>(lo.x, hi.x, lo.y, hi.y);
    let second = vec4<f16>(lo.z, hi.z, lo.w, hi.w);
#else
    let first = lo;
    let second = hi;
#endif
#if VECTOR_TILES
    tile_a[at / 4u] = first;
    tile_a[at / 4u + 1u] = second;
#else
#for e 4
    tile_a[at + {e}u] = first[{e}];
    tile_a[at + 4u + {e}u] = second[{e}];
#endfor
#endif
}

// bf16 has a wider range than the halves that the matrices take.
fn half_range(x: vec4<f32>) -> vec4<f32> {
#if TA == bf16
    return clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0));
#else
    return x;
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

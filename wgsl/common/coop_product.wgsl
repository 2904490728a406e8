// The walk of a product on cooperative matrices: see matmul/gemm_coop.wgsl for its plan. What includes this has before it the
// bindings, load_eight() and widen() of a, and finish(); behind it
//     fetch_packet(row, k)      W_EACH weights of a row of w, as they come
//     fetch_affine(row, k)      what SPAN of them share, of type Affine
//     put_w(at, packet, chunk, affine)      eight of them decoded into the tile of w
//!include "common/coop_matrix.wgsl"

const TILE_M = GRID_M * FRAG_M * SIDE;
const TILE_N = GRID_N * FRAG_N * SIDE;
const STRIDE = TILE_K + 8u; // halves from one tile row to the next
const SUBGROUPS = GRID_M * GRID_N * GRID_K;
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
var<workgroup> scratch: array<f32, SUBGROUPS * SIDE * SIDE>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
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
    let a_row_{t} = min(m0 + a_item_{t} / (TILE_K / 8u), params.m - 1u);
    let a_k_{t} = a_item_{t} % (TILE_K / 8u) * 8u;
    let a_to_{t} = a_item_{t} / (TILE_K / 8u) * STRIDE + a_k_{t};
#for d DEPTH
    var a_{t}_{d} = load_eight(a_row_{t}, {d}u * TILE_K + a_k_{t});
#endfor
#endfor
#for t W_ITEMS
    let w_item_{t} = {t}u * THREADS + thread;
    // Neighbouring threads take eight rows, whose places are in different banks.
    let w_in_{t} = w_item_{t} / (8u * W_PIECES) * 8u + w_item_{t} % 8u;
    let w_row_{t} = min(n0 + w_in_{t}, params.n - 1u);
    let w_k_{t} = w_item_{t} / 8u % W_PIECES * W_EACH;
    let w_to_{t} = w_in_{t} * STRIDE + w_k_{t};
#for d DEPTH
    var w_{t}_{d} = fetch_packet(w_row_{t}, {d}u * TILE_K + w_k_{t});
#for s SPANS
    var affine_{t}_{s}_{d} = fetch_affine(w_row_{t}, {d}u * TILE_K + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#endfor
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
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
            (w_k_{t} % PACKET + {s}u * SPAN) / 8u + {h}u,
            affine_{t}_{s}_{d},
        );
#endfor
#endfor
#endfor
        workgroupBarrier();
        // Loads for DEPTH steps on; past the end of K they repeat the last ones.
#for t A_ITEMS
        a_{t}_{d} = load_eight(a_row_{t}, k0 + STEP + {d}u * TILE_K + a_k_{t});
#endfor
#for t W_ITEMS
        w_{t}_{d} = fetch_packet(w_row_{t}, k0 + STEP + {d}u * TILE_K + w_k_{t});
#for s SPANS
        affine_{t}_{s}_{d} = fetch_affine(w_row_{t}, k0 + STEP + {d}u * TILE_K + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
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
    }
    // Matrices have no element access, so each passes through this subgroup's scratch on its way to the epilogue.
    let mine = subgroup * SIDE * SIDE;
#for i FRAG_M
#for j FRAG_N
    workgroupBarrier();
    coopStoreT(sum_{i}_{j}, &scratch[mine], SIDE);
    workgroupBarrier();
    flush(subgroup, m0 + frag_m + {i}u * SIDE, n0 + frag_n + {j}u * SIDE, lane, lanes);
#endfor
#endfor
}

// Finishes one matrix of outputs: the subgroups that have sums of it take turns with its elements.
fn flush(subgroup: u32, m0: u32, n0: u32, lane: u32, lanes: u32) {
    let matrix = subgroup % (GRID_M * GRID_N);
    let turn = subgroup / (GRID_M * GRID_N);
    for (var e = (turn * lanes + lane) * SUMS; e < SIDE * SIDE; e += GRID_K * lanes * SUMS) {
        let m = m0 + e / SIDE;
        let n = n0 + e % SIDE;
        let at = matrix * SIDE * SIDE + e;
        if m < params.m && n < params.n {
#if SUMS == 4
            finish(vec4<f32>(sum_of(at), sum_of(at + 1u), sum_of(at + 2u), sum_of(at + 3u)), m, n);
#elif SUMS == 2
            finish(vec2<f32>(sum_of(at), sum_of(at + 1u)), m, n);
#else
            finish(sum_of(at), m, n);
#endif
        }
    }
}

// The sum over the slices of K of what the scratch of the first has here.
fn sum_of(at: u32) -> f32 {
    var sum = scratch[at];
    for (var s = 1u; s < GRID_K; s++) { sum += scratch[s * (GRID_M * GRID_N * SIDE * SIDE) + at]; }
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

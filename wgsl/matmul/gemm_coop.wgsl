// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) on cooperative matrices of side SIDE: f16 operands, f32 accumulators. A workgroup of
// GRID_M × GRID_N subgroups owns a TILE_M × TILE_N tile of out, each subgroup FRAG_M × FRAG_N matrices of it. Per step of TILE_K
// all threads decode w and copy a into f16 tiles in workgroup memory (rows padded by 8 halves against bank conflicts), while the
// loads of the next step are already in flight: they are issued without any condition (indices are clamped), because
// a branch around them costs 45 % on NVIDIA. One buffer and two barriers beat two buffers: the larger tile wins.
enable f16;
enable wgpu_cooperative_matrix;
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"

#if SIDE == 16
alias MatA = coop_mat16x16<f16, A>;
alias MatB = coop_mat16x16<f16, B>;
alias MatC = coop_mat16x16<f32, C>;
#else
alias MatA = coop_mat8x8<f16, A>;
alias MatB = coop_mat8x8<f16, B>;
alias MatC = coop_mat8x8<f32, C>;
#endif

const TILE_M = GRID_M * FRAG_M * SIDE;
const TILE_N = GRID_N * FRAG_N * SIDE;
const STRIDE = TILE_K + 8u; // halves from one tile row to the next
const SUBGROUPS = GRID_M * GRID_N;
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
#if PAIR
const OUTPUTS = 2u; // sums that make one output
#else
const OUTPUTS = 1u;
#endif

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
    let frag_m = (subgroup / GRID_N) * FRAG_M * SIDE;
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
    var a_{t} = load_eight(a_row_{t}, a_k_{t});
#endfor
#for t W_ITEMS
    let w_item_{t} = {t}u * THREADS + thread;
    let w_row_{t} = min(n0 + w_item_{t} / (TILE_K / W_EACH), params.n - 1u);
    let w_k_{t} = w_item_{t} % (TILE_K / W_EACH) * W_EACH;
    let w_to_{t} = w_item_{t} / (TILE_K / W_EACH) * STRIDE + w_k_{t};
    var w_{t} = fetch_packet(w_row_{t}, w_k_{t});
#for s SPANS
    var affine_{t}_{s} = fetch_affine(w_row_{t}, w_k_{t} + {s}u * SPAN);
#endfor
#endfor
    for (var k0 = 0u; k0 < params.k; k0 += TILE_K) {
        workgroupBarrier();
#for t A_ITEMS
        put_a(a_to_{t}, widen(a_{t}));
#endfor
#for t W_ITEMS
#for s SPANS
#for h SPAN_CHUNKS
        put_w(
            w_to_{t} + {s}u * SPAN + {h}u * 8u,
            decode(w_{t}, (w_k_{t} % PACKET + {s}u * SPAN) / 8u + {h}u),
            affine_{t}_{s},
        );
#endfor
#endfor
#endfor
        workgroupBarrier();
        // The next step's loads; past the end of K they repeat the last ones.
#for t A_ITEMS
        a_{t} = load_eight(a_row_{t}, k0 + TILE_K + a_k_{t});
#endfor
#for t W_ITEMS
        w_{t} = fetch_packet(w_row_{t}, k0 + TILE_K + w_k_{t});
#for s SPANS
        affine_{t}_{s} = fetch_affine(w_row_{t}, k0 + TILE_K + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
        for (var k = 0u; k < TILE_K; k += SIDE) {
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
    }
    // Matrices have no element access, so each passes through this subgroup's scratch on its way to the epilogue.
    let mine = subgroup * SIDE * SIDE;
#for i FRAG_M
#for j FRAG_N
    workgroupBarrier();
    coopStoreT(sum_{i}_{j}, &scratch[mine], SIDE);
    workgroupBarrier();
    flush(mine, m0 + frag_m + {i}u * SIDE, n0 + frag_n + {j}u * SIDE, lane, lanes);
#endfor
#endfor
}

// Stores one matrix of sums from the scratch.
fn flush(from_scratch: u32, m0: u32, n0: u32, lane: u32, lanes: u32) {
    for (var e = lane * OUTPUTS; e < SIDE * SIDE; e += lanes * OUTPUTS) {
        let m = m0 + e / SIDE;
        let n = n0 + e % SIDE;
        if m < params.m && n < params.n {
#if PAIR
            finish_pair(scratch[from_scratch + e], scratch[from_scratch + e + 1u], m, n);
#else
            finish(scratch[from_scratch + e], m, n);
#endif
        }
    }
}

fn fetch_packet(row: u32, k: u32) -> Packet {
    return load_packet(row, min(k / PACKET, params.packets - 1u));
}

// Scale and offset that turn codes into weights: w = code · x + y.
fn fetch_affine(row: u32, k: u32) -> vec2<f32> {
    let group = scale_group(k);
    let scale = load_scale(row, group);
    return vec2<f32>(scale * CODE_UNIT, -scale * load_zero(row, group));
}

fn put_a(at: u32, x: Eight) {
#if VECTOR_TILES
    tile_a[at / 4u] = vec4<f16>(x.lo);
    tile_a[at / 4u + 1u] = vec4<f16>(x.hi);
#else
#for e 4
    tile_a[at + {e}u] = f16(x.lo[{e}]);
    tile_a[at + 4u + {e}u] = f16(x.hi[{e}]);
#endfor
#endif
}

fn put_w(at: u32, codes: Eight, affine: vec2<f32>) {
#if QUANTISED
    let lo = fma(codes.lo, vec4<f32>(affine.x), vec4<f32>(affine.y));
    let hi = fma(codes.hi, vec4<f32>(affine.x), vec4<f32>(affine.y));
#else
    let lo = codes.lo;
    let hi = codes.hi;
#endif
#if VECTOR_TILES
    tile_w[at / 4u] = vec4<f16>(lo);
    tile_w[at / 4u + 1u] = vec4<f16>(hi);
#else
#for e 4
    tile_w[at + {e}u] = f16(lo[{e}]);
    tile_w[at + 4u + {e}u] = f16(hi[{e}]);
#endfor
#endif
}

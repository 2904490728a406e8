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
// What a thread fetches per step: A_ITEMS times eight activations, W_ITEMS times W_EACH weights of one packet.
const A_ITEMS = TILE_M * TILE_K / 8u / THREADS;
const W_EACH = min(PACKET, TILE_N * TILE_K / THREADS);
const W_ITEMS = TILE_N * TILE_K / THREADS / W_EACH;
#if SPLIT_PACKET
const SPAN = min(W_EACH, 16u); // weights that share a scale
#else
const SPAN = W_EACH;
#endif
const SPANS = W_ITEMS * W_EACH / SPAN;

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

struct Fetched {
    a: array<RawEight, A_ITEMS>,
    w: array<Packet, W_ITEMS>,
    scale: array<f32, SPANS>,
    zero: array<f32, SPANS>,
}

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

    var sum: array<MatC, FRAG_M * FRAG_N>;
    for (var i = 0u; i < FRAG_M * FRAG_N; i++) { sum[i] = MatC(); }
    var fetched: Fetched;
    fetch(0u, m0, n0, thread, &fetched);
    for (var k0 = 0u; k0 < params.k; k0 += TILE_K) {
        workgroupBarrier();
        place(thread, &fetched);
        workgroupBarrier();
        fetch(k0 + TILE_K, m0, n0, thread, &fetched);
        for (var k = 0u; k < TILE_K; k += SIDE) {
            var b: array<MatB, FRAG_N>;
            for (var j = 0u; j < FRAG_N; j++) {
                let at = ((frag_n + j * SIDE) * STRIDE + k) / UNIT;
                b[j] = coopLoad<MatB>(&tile_w[at], STRIDE / UNIT);
            }
            for (var i = 0u; i < FRAG_M; i++) {
                let at = ((frag_m + i * SIDE) * STRIDE + k) / UNIT;
                let x = coopLoadT<MatA>(&tile_a[at], STRIDE / UNIT);
                for (var j = 0u; j < FRAG_N; j++) {
                    sum[i * FRAG_N + j] = coopMultiplyAdd(x, b[j], sum[i * FRAG_N + j]);
                }
            }
        }
    }
    // Matrices have no element access, so each passes through this subgroup's scratch on its way to the epilogue.
    let mine = subgroup * SIDE * SIDE;
    for (var i = 0u; i < FRAG_M; i++) {
        for (var j = 0u; j < FRAG_N; j++) {
            workgroupBarrier();
            coopStoreT(sum[i * FRAG_N + j], &scratch[mine], SIDE);
            workgroupBarrier();
            for (var e = lane * OUTPUTS; e < SIDE * SIDE; e += lanes * OUTPUTS) {
                let m = m0 + frag_m + i * SIDE + e / SIDE;
                let n = n0 + frag_n + j * SIDE + e % SIDE;
                if m < params.m && n < params.n {
#if PAIR
                    finish_pair(scratch[mine + e], scratch[mine + e + 1u], m, n);
#else
                    finish(scratch[mine + e], m, n);
#endif
                }
            }
        }
    }
}

// Loads this thread's share of the step that begins at column `k0`; past the end of K the activations are zero and
// the weights whatever the last packet holds.
fn fetch(k0: u32, m0: u32, n0: u32, thread: u32, to: ptr<function, Fetched>) {
    for (var i = 0u; i < A_ITEMS; i++) {
        let item = i * THREADS + thread;
        let row = min(m0 + item / (TILE_K / 8u), params.m - 1u);
        (*to).a[i] = load_eight(row, k0 + item % (TILE_K / 8u) * 8u);
    }
    for (var i = 0u; i < W_ITEMS; i++) {
        let item = i * THREADS + thread;
        let row = min(n0 + item / (TILE_K / W_EACH), params.n - 1u);
        let k = k0 + item % (TILE_K / W_EACH) * W_EACH;
        (*to).w[i] = load_packet(row, min(k / PACKET, params.packets - 1u));
        for (var s = 0u; s < W_EACH / SPAN; s++) {
            let group = min((k + s * SPAN) >> params.group_shift, max(params.groups, 1u) - 1u);
            (*to).scale[i * (W_EACH / SPAN) + s] = load_scale(row, group);
            (*to).zero[i * (W_EACH / SPAN) + s] = load_zero(row, group);
        }
    }
}

// Puts a fetched step into the tiles.
fn place(thread: u32, from_memory: ptr<function, Fetched>) {
    for (var i = 0u; i < A_ITEMS; i++) {
        let item = i * THREADS + thread;
        let at = item / (TILE_K / 8u) * STRIDE + item % (TILE_K / 8u) * 8u;
        let x = widen((*from_memory).a[i]);
#if VECTOR_TILES
        tile_a[at / 4u] = vec4<f16>(x.lo);
        tile_a[at / 4u + 1u] = vec4<f16>(x.hi);
#else
        for (var e = 0u; e < 4u; e++) {
            tile_a[at + e] = f16(x.lo[e]);
            tile_a[at + 4u + e] = f16(x.hi[e]);
        }
#endif
    }
    for (var i = 0u; i < W_ITEMS; i++) {
        let item = i * THREADS + thread;
        let column = item % (TILE_K / W_EACH) * W_EACH;
        let first = item / (TILE_K / W_EACH) * STRIDE + column;
        for (var c = 0u; c < W_EACH / 8u; c++) {
            let span = i * (W_EACH / SPAN) + c * 8u / SPAN;
            let scale = (*from_memory).scale[span] * CODE_UNIT;
            let offset = -(*from_memory).scale[span] * (*from_memory).zero[span];
            let v = decode((*from_memory).w[i], (column % PACKET) / 8u + c);
            let lo = fma(v.lo, vec4<f32>(scale), vec4<f32>(offset));
            let hi = fma(v.hi, vec4<f32>(scale), vec4<f32>(offset));
            let at = first + c * 8u;
#if VECTOR_TILES
            tile_w[at / 4u] = vec4<f16>(lo);
            tile_w[at / 4u + 1u] = vec4<f16>(hi);
#else
            for (var e = 0u; e < 4u; e++) {
                tile_w[at + e] = f16(lo[e]);
                tile_w[at + 4u + e] = f16(hi[e]);
            }
#endif
        }
    }
}

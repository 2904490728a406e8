// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) on simdgroup matrices of 8 × 8 with f32 accumulators. A threadgroup of GRID_M × GRID_N
// SIMD-groups owns a TILE_M × TILE_N tile of out, each SIMD-group FRAG_M × FRAG_N matrices of it. Per step of TILE_K all threads
// copy a and decode w into tiles of TILE (half or float) in threadgroup memory, rows padded by 16 bytes against bank conflicts.
// There are two pairs of tiles: while one is multiplied, the next step's loads are in flight in registers and then fill the
// other, so that a step takes one barrier. Loads stand under no condition (indices are clamped). At the end the sums go through
// the same memory, so that neighbouring lanes store neighbouring columns.
//!include "common/grid.metal"
//!include "common/weight.metal"
//!include "common/activation.metal"
//!include "common/linear.metal"
//!include "common/rows.metal"

constant constexpr uint STRIDE = TILE_K + 16u / sizeof(TILE); // elements from one tile row to the next
constant constexpr uint PART_M = FRAG_M * 8u;                 // a SIMD-group's share of the tile
constant constexpr uint PART_N = FRAG_N * 8u;
constant constexpr uint SUMS = GRID_M * GRID_N * PART_M * PART_N;
// Bytes of both pairs of tiles, and of all sums after them.
constant constexpr uint TILES = 2u * (TILE_M + TILE_N) * STRIDE * sizeof(TILE);
static_assert(TILES >= SUMS * sizeof(float), "the sums fit where the tiles were");

using Matrix = simdgroup_matrix<TILE, 8, 8>;
using Sums = simdgroup_matrix<float, 8, 8>;
using Four = vec<TILE, 4>;

inline void put_eight(threadgroup TILE* to, Eight x) {
    *(threadgroup Four*)to = Four(x.lo);
    *(threadgroup Four*)(to + 4) = Four(x.hi);
}

[[max_total_threads_per_threadgroup(THREADS)]]
kernel void gemm(
    constant Params& params [[buffer(0)]],
    device const AUnit* a [[buffer(1)]],
    device const WUnit* w [[buffer(2)]],
    device const Scale* scales [[buffer(3)]],
    device const Zero* zeros [[buffer(4)]],
    device const TO* bias [[buffer(5)]],
#if SPLIT
    device TO* out [[buffer(6)]],
    device TO* out_k [[buffer(7)]],
    device TO* out_v [[buffer(8)]],
#else
    device const TO* aux [[buffer(6)]],
    device TO* out [[buffer(7)]],
#endif
    uint3 group [[threadgroup_position_in_grid]],
    uint3 groups [[threadgroups_per_grid]],
    uint index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float4 memory[TILES / 16u];
    uint tiles_m = (params.m + TILE_M - 1u) / TILE_M;
    uint tiles_n = (params.n + TILE_N - 1u) / TILE_N;
    uint tile = group_index(group, groups);
    if (tile >= tiles_m * tiles_n) return; // the fold rounded up
    // Bands of 8 tile rows, walked column by column: threadgroups that run together share rows of a and of w in the cache.
    uint band = tile / (8u * tiles_n);
    uint height = min(tiles_m - band * 8u, 8u);
    uint m0 = (band * 8u + tile % (8u * tiles_n) % height) * TILE_M;
    uint n0 = (tile % (8u * tiles_n) / height) * TILE_N;
    uint part_m = simdgroup / GRID_N * PART_M;
    uint part_n = simdgroup % GRID_N * PART_N;
    Weight weight{w, scales, zeros};

    // What this thread moves each step: where it comes from, where it goes. W_EACH weights share a scale.
    uint a_row[A_ITEMS], a_k[A_ITEMS], a_to[A_ITEMS];
    RawEight a_next[A_ITEMS];
    for (uint t = 0; t < A_ITEMS; ++t) {
        uint item = t * THREADS + index;
        a_k[t] = item % (TILE_K / 8u) * 8u;
        a_row[t] = min(m0 + item / (TILE_K / 8u), params.m - 1u);
        a_to[t] = item / (TILE_K / 8u) * STRIDE + a_k[t];
        a_next[t] = load_eight(a, params, a_row[t], a_k[t]);
    }
    uint w_row[W_ITEMS], w_k[W_ITEMS], w_to[W_ITEMS];
    Packet w_next[W_ITEMS];
    float scale_next[W_ITEMS], offset_next[W_ITEMS];
    for (uint t = 0; t < W_ITEMS; ++t) {
        uint item = t * THREADS + index;
        w_k[t] = item % (TILE_K / W_EACH) * W_EACH;
        w_row[t] = min(n0 + item / (TILE_K / W_EACH), params.n - 1u);
        w_to[t] = TILE_M * STRIDE + item / (TILE_K / W_EACH) * STRIDE + w_k[t];
        w_next[t] = load_packet(weight, params, w_row[t], min(w_k[t] / PACKET, params.packets - 1u));
        uint of = scale_group(params, w_k[t]);
        scale_next[t] = load_scale(weight, params, w_row[t], of);
        offset_next[t] = load_zero(weight, params, w_row[t], of);
    }
    Sums sum[FRAG_M][FRAG_N];
    for (uint i = 0; i < FRAG_M; ++i) {
        for (uint j = 0; j < FRAG_N; ++j) sum[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    threadgroup TILE* tiles = (threadgroup TILE*)memory;
    for (uint k0 = 0; k0 < params.k; k0 += TILE_K) {
        for (uint t = 0; t < A_ITEMS; ++t) put_eight(tiles + a_to[t], widen(a_next[t]));
        for (uint t = 0; t < W_ITEMS; ++t) {
            for (uint h = 0; h < W_EACH / 8u; ++h) {
                Eight v = decode(w_next[t], (k0 + w_k[t]) % PACKET / 8u + h);
#if QUANTISED
                float4 unit = float4(scale_next[t] * CODE_UNIT), offset = float4(-scale_next[t] * offset_next[t]);
                v = Eight{fma(v.lo, unit, offset), fma(v.hi, unit, offset)};
#endif
                put_eight(tiles + w_to[t] + h * 8u, v);
            }
        }
        // Also says that the other pair, which the step before has multiplied, may be filled next.
        threadgroup_barrier(mem_flags::mem_threadgroup);
        // The next step's loads; past the end of K they repeat the last ones.
        for (uint t = 0; t < A_ITEMS; ++t) a_next[t] = load_eight(a, params, a_row[t], k0 + TILE_K + a_k[t]);
        for (uint t = 0; t < W_ITEMS; ++t) {
            uint k = k0 + TILE_K + w_k[t];
            w_next[t] = load_packet(weight, params, w_row[t], min(k / PACKET, params.packets - 1u));
            uint of = scale_group(params, k);
            scale_next[t] = load_scale(weight, params, w_row[t], of);
            offset_next[t] = load_zero(weight, params, w_row[t], of);
        }
        threadgroup TILE* tile_a = tiles + part_m * STRIDE;
        threadgroup TILE* tile_w = tiles + (TILE_M + part_n) * STRIDE;
        for (uint k = 0; k < TILE_K; k += 8u) {
            Matrix left[FRAG_M], right[FRAG_N];
            for (uint i = 0; i < FRAG_M; ++i) simdgroup_load(left[i], tile_a + i * 8u * STRIDE + k, STRIDE);
            for (uint j = 0; j < FRAG_N; ++j) {
                simdgroup_load(right[j], tile_w + j * 8u * STRIDE + k, STRIDE, ulong2(0, 0), true);
            }
            for (uint i = 0; i < FRAG_M; ++i) {
                for (uint j = 0; j < FRAG_N; ++j) simdgroup_multiply_accumulate(sum[i][j], left[i], right[j], sum[i][j]);
            }
        }
        bool first_pair = tiles == (threadgroup TILE*)memory;
        tiles = (threadgroup TILE*)memory + (first_pair ? (TILE_M + TILE_N) * STRIDE : 0u);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup float* mine = (threadgroup float*)memory + simdgroup * PART_M * PART_N;
    for (uint i = 0; i < FRAG_M; ++i) {
        for (uint j = 0; j < FRAG_N; ++j) simdgroup_store(sum[i][j], mine + i * 8u * PART_N + j * 8u, PART_N);
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
#if SPLIT
    Output to{bias, out, out_k, out_v};
#else
    Output to{bias, out, aux};
#endif
#if PAIR
    for (uint e = lane * 2u; e < PART_M * PART_N; e += 64u) {
#else
    for (uint e = lane; e < PART_M * PART_N; e += 32u) {
#endif
        uint m = m0 + part_m + e / PART_N;
        uint n = n0 + part_n + e % PART_N;
        if (m >= params.m || n >= params.n) continue;
#if PAIR
        finish_pair(to, params, mine[e], mine[e + 1u], m, n);
#else
        finish(to, params, mine[e], m, n);
#endif
    }
}

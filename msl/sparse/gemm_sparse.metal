// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ), w N:M-sparse, on simdgroup matrices: as matmul/gemm.metal, with two pairs of tiles of which
// one is filled while the other is multiplied. A thread expands eight columns of a row of w at a time, pruned ones as zeros;
// loads of the next step are in flight during the products.
//!include "common/grid.metal"
//!include "common/weight.metal"
//!include "common/activation.metal"
//!include "common/sparse.metal"
//!include "common/tiles.metal"

// Of eight columns EIGHT_KEPT are kept, 4 or 2.
struct Fetched {
    uint2 values; // words that hold them
    uint bits;    // their positions
    float scale;
};

inline Fetched fetch_eight(
    device const uint* w, device const uint* indices, device const half* scales, constant Params& params, uint row, uint k) {
    // Past the row's end: what its last words hold, for activations that are zero.
    uint e = k / 8u * EIGHT_KEPT;
    uint value_words = params.packets * 4u;
#if WEIGHT == f16
    uint at = row * value_words + min(e / 2u, value_words - EIGHT_KEPT / 2u);
    uint2 values = uint2(w[at], w[at + EIGHT_KEPT / 4u]);
#else
    uint2 values = uint2(w[row * value_words + min(e / 8u, value_words - 1u)], 0u);
#endif
    return Fetched{values, positions(indices, params, row, e * INDEX_BITS), scale_at(scales, params, row, k)};
}

inline Eight expand_eight(Fetched from, uint k) {
#if WEIGHT == f16
    float4 v = float4(halves(from.values.x), halves(from.values.y));
#else
    Eight all = kept_eight(uint4(from.values.x, 0u, 0u, 0u), 0u);
    uint first = k / 8u * EIGHT_KEPT % 8u;
    float4 v = first >= 4u ? all.hi : all.lo;
    if (EIGHT_KEPT == 2u && first % 4u == 2u) v = v.zwzw;
    v = fma(v, float4(from.scale * CODE_UNIT), float4(-FIXED_ZERO * from.scale));
#endif
    Eight x = Eight{float4(0.0f), float4(0.0f)};
    for (uint j = 0; j < EIGHT_KEPT; ++j) {
        uint4 column = uint4(column_of(from.bits, j));
        x.lo = select(x.lo, float4(v[j]), column == uint4(0u, 1u, 2u, 3u));
        x.hi = select(x.hi, float4(v[j]), column == uint4(4u, 5u, 6u, 7u));
    }
    return x;
}

[[max_total_threads_per_threadgroup(THREADS)]]
kernel void gemm_sparse(
    constant Params& params [[buffer(0)]],
    device const AUnit* a [[buffer(1)]],
    device const uint* w [[buffer(2)]],
    device const uint* indices [[buffer(3)]],
    device const half* scales [[buffer(4)]],
    device const TO* bias [[buffer(5)]],
    device const TO* aux [[buffer(6)]],
    device TO* out [[buffer(7)]],
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
    uint2 origin = tile_origin(tile, tiles_m, tiles_n);
    uint m0 = origin.x, n0 = origin.y;
    uint part_m = simdgroup / GRID_N * PART_M;
    uint part_n = simdgroup % GRID_N * PART_N;

    // What this thread moves each step: where it comes from, where it goes.
    uint a_row[A_ITEMS], a_k[A_ITEMS], a_to[A_ITEMS];
    Eight a_next[A_ITEMS];
    for (uint t = 0; t < A_ITEMS; ++t) {
        uint item = t * THREADS + index;
        a_k[t] = item % (TILE_K / 8u) * 8u;
        a_row[t] = min(m0 + item / (TILE_K / 8u), params.m - 1u);
        a_to[t] = item / (TILE_K / 8u) * STRIDE + a_k[t];
        a_next[t] = Eight{load_quad(a, params, a_row[t], a_k[t]), load_quad(a, params, a_row[t], a_k[t] + 4u)};
    }
    uint w_row[W_ITEMS], w_k[W_ITEMS], w_to[W_ITEMS];
    Fetched w_next[W_ITEMS];
    for (uint t = 0; t < W_ITEMS; ++t) {
        uint item = t * THREADS + index;
        w_k[t] = item % (TILE_K / 8u) * 8u;
        w_row[t] = min(n0 + item / (TILE_K / 8u), params.n - 1u);
        w_to[t] = (TILE_M + item / (TILE_K / 8u)) * STRIDE + w_k[t];
        w_next[t] = fetch_eight(w, indices, scales, params, w_row[t], w_k[t]);
    }
    Sums sum[FRAG_M][FRAG_N];
    clear(sum);
    threadgroup TILE* tiles = (threadgroup TILE*)memory;
    for (uint k0 = 0; k0 < params.k; k0 += TILE_K) {
        for (uint t = 0; t < A_ITEMS; ++t) put_eight(tiles + a_to[t], a_next[t]);
        for (uint t = 0; t < W_ITEMS; ++t) put_eight(tiles + w_to[t], expand_eight(w_next[t], k0 + w_k[t]));
        // Also says that the other pair, which the step before has multiplied, may be filled next.
        threadgroup_barrier(mem_flags::mem_threadgroup);
        uint k1 = k0 + TILE_K;
        for (uint t = 0; t < A_ITEMS; ++t) {
            uint k = k1 + a_k[t];
            a_next[t] = Eight{load_quad(a, params, a_row[t], k), load_quad(a, params, a_row[t], k + 4u)};
        }
        for (uint t = 0; t < W_ITEMS; ++t) w_next[t] = fetch_eight(w, indices, scales, params, w_row[t], k1 + w_k[t]);
        multiply(sum, tiles + part_m * STRIDE, tiles + (TILE_M + part_n) * STRIDE);
        bool first_pair = tiles == (threadgroup TILE*)memory;
        tiles = (threadgroup TILE*)memory + (first_pair ? PAIR_OF_TILES : 0u);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup float* mine = (threadgroup float*)memory + simdgroup * PART_M * PART_N;
    spill(sum, mine);
    Output to{bias, aux, out};
    for (uint e = lane; e < PART_M * PART_N; e += 32u) {
        uint m = m0 + part_m + e / PART_N;
        uint n = n0 + part_n + e % PART_N;
        if (m < params.m && n < params.n) finish(to, params, mine[e], m, n);
    }
}

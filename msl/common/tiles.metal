// The products of tiles in threadgroup memory that gemm and gemm_sparse share: GRID_M × GRID_N SIMD-groups, each with FRAG_M ×
// FRAG_N matrices of sums. A tile of a has TILE_M rows of TILE_K elements of TILE (half or float), one of w TILE_N rows; rows are
// padded by 16 bytes against bank conflicts. Needs eight.metal.
constant constexpr uint STRIDE = TILE_K + 16u / sizeof(TILE); // elements from one tile row to the next
constant constexpr uint PART_M = FRAG_M * 8u;                 // a SIMD-group's share of the tile
constant constexpr uint PART_N = FRAG_N * 8u;
constant constexpr uint PAIR_OF_TILES = (TILE_M + TILE_N) * STRIDE;
// Bytes of two pairs of tiles, and of all sums after them.
constant constexpr uint TILES = 2u * PAIR_OF_TILES * sizeof(TILE);
static_assert(TILES >= GRID_M * GRID_N * PART_M * PART_N * sizeof(float), "the sums fit where the tiles were");

using Matrix = simdgroup_matrix<TILE, 8, 8>;
using Sums = simdgroup_matrix<float, 8, 8>;
using Four = vec<TILE, 4>;

inline void put_eight(threadgroup TILE* to, Eight x) {
    *(threadgroup Four*)to = Four(x.lo);
    *(threadgroup Four*)(to + 4) = Four(x.hi);
}

// Which tile of out a threadgroup takes: bands of 8 tile rows, walked column by column, so that threadgroups that run together
// share rows of a and of w in the cache.
inline uint2 tile_origin(uint tile, uint tiles_m, uint tiles_n) {
    uint band = tile / (8u * tiles_n);
    uint height = min(tiles_m - band * 8u, 8u);
    return uint2(band * 8u + tile % (8u * tiles_n) % height, tile % (8u * tiles_n) / height) * uint2(TILE_M, TILE_N);
}

inline void clear(thread Sums (&sum)[FRAG_M][FRAG_N]) {
    for (uint i = 0; i < FRAG_M; ++i) {
        for (uint j = 0; j < FRAG_N; ++j) sum[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
}

// Adds the products of this SIMD-group's rows of the two tiles.
inline void multiply(thread Sums (&sum)[FRAG_M][FRAG_N], threadgroup const TILE* tile_a, threadgroup const TILE* tile_w) {
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
}

// Puts this SIMD-group's sums into its share of threadgroup memory, rows of PART_N.
inline void spill(thread Sums (&sum)[FRAG_M][FRAG_N], threadgroup float* mine) {
    for (uint i = 0; i < FRAG_M; ++i) {
        for (uint j = 0; j < FRAG_N; ++j) simdgroup_store(sum[i][j], mine + i * 8u * PART_N + j * 8u, PART_N);
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
}

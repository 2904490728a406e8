// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ), w N:M-sparse, M ≤ ROWS_A = 1, 2, 4 or 8: every weight is read once. As matmul/gemv.metal, a
// SIMD-group takes EACH rows of w by itself, 16 bytes of kept values and their positions a lane and step, and sums meet by simd_sum.
// A lane loads whole blocks of activations with vector loads and picks from them in registers: one load of four activations
// serves EACH rows of w, and nothing is gathered from memory.
//!include "common/grid.metal"
//!include "common/weight.metal"
//!include "common/activation.metal"
//!include "common/sparse.metal"

constant constexpr uint CHUNK_COLUMNS = 8u * BLOCK / KEPT; // that eight kept values stand for
constant constexpr uint QUADS = CHUNK_COLUMNS / 4u;
static_assert(VALUES <= 32u, "a lane for each value");

[[max_total_threads_per_threadgroup(THREADS)]]
kernel void gemv_sparse(
    constant Params& params [[buffer(0)]],
    device const AUnit* a [[buffer(1)]],
    device const uint4* w [[buffer(2)]],
    device const uint* indices [[buffer(3)]],
    device const half* scales [[buffer(4)]],
    device const TO* bias [[buffer(5)]],
    device const TO* aux [[buffer(6)]],
    device TO* out [[buffer(7)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint3 groups [[threadgroups_per_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
    uint first = (group_index(group, groups) * (THREADS / 32u) + simdgroup) * EACH;
    if (first >= params.n) return; // whole SIMD-groups
    uint row[EACH];
    for (uint c = 0; c < EACH; ++c) row[c] = min(first + c, params.n - 1u); // past the end: computed, not stored
    float sum[EACH][ROWS_A] = {};
    for (uint packet = lane; packet < params.packets; packet += 32u) {
        uint4 codes[EACH];
        for (uint c = 0; c < EACH; ++c) codes[c] = w[row[c] * params.packets + packet];
        for (uint h = 0; h < CHUNKS; ++h) {
            uint chunk = packet * CHUNKS + h;
            uint k0 = chunk * CHUNK_COLUMNS;
            Eight v[EACH];
            uint bits[EACH];
            for (uint c = 0; c < EACH; ++c) {
                // Each half of a chunk lies in one group.
                float lo = scale_at(scales, params, row[c], k0);
                float hi = scale_at(scales, params, row[c], k0 + CHUNK_COLUMNS / 2u);
                v[c] = kept_eight(codes[c], h);
                v[c].lo = (v[c].lo - FIXED_ZERO / CODE_UNIT) * lo;
                v[c].hi = (v[c].hi - FIXED_ZERO / CODE_UNIT) * hi;
                bits[c] = positions(indices, params, row[c], chunk * 8u * INDEX_BITS);
            }
            for (uint m = 0; m < ROWS_A; ++m) {
                float4 x[QUADS];
                for (uint q = 0; q < QUADS; ++q) x[q] = load_quad(a, params, min(m, params.m - 1u), k0 + 4u * q);
                for (uint c = 0; c < EACH; ++c) {
                    for (uint j = 0; j < 8u; ++j) {
                        uint column = column_of(bits[c], j), quad = j / KEPT * BLOCK / 4u;
                        float4 four = x[quad];
                        if (BLOCK == 8u) four = column % 8u < 4u ? x[quad] : x[quad + BLOCK / 4u - 1u];
                        float value = j < 4u ? v[c].lo[j] : v[c].hi[j - 4u];
                        sum[c][m] = fma(value, four[column % 4u], sum[c][m]);
                    }
                }
            }
        }
    }
    float mine = 0.0f;
    for (uint c = 0; c < EACH; ++c) {
        for (uint m = 0; m < ROWS_A; ++m) {
            float all = simd_sum(sum[c][m]) * CODE_UNIT;
            mine = lane == c * ROWS_A + m ? all : mine;
        }
    }
    uint n = first + lane / ROWS_A, m = lane % ROWS_A;
    Output to{bias, aux, out};
    if (lane < VALUES && n < params.n && m < params.m) finish(to, params, mine, m, n);
}

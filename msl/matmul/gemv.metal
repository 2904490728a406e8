// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) for M ≤ ROWS_A = 1, 2, 4 or 8 rows of activations: every weight is read once.
// A SIMD-group takes EACH rows of w by itself and its lanes walk them side by side, one packet (16 bytes, and its scale) of each
// row a lane and step, all loaded before any is used. Activations, once loaded, serve all EACH packets. So a threadgroup needs
// neither memory nor barriers: sums meet by simd_sum, and lane v finishes value v = row of w · ROWS_A + row of a.
//!include "common/grid.metal"
//!include "common/weight.metal"
//!include "common/activation.metal"
//!include "common/linear.metal"
//!include "common/rows.metal"
#if NORM
//!include "common/gamma.metal"
#endif

static_assert(VALUES <= 32u, "a lane for each value");

[[max_total_threads_per_threadgroup(THREADS)]]
kernel void gemv(
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
#if NORM
    device const AUnit* gamma [[buffer(9)]],
#endif
#else
    device const TO* aux [[buffer(6)]],
    device TO* out [[buffer(7)]],
#if NORM
    device const AUnit* gamma [[buffer(8)]],
#endif
#endif
    uint3 group [[threadgroup_position_in_grid]],
    uint3 groups [[threadgroups_per_grid]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
    uint first = group_index(group, groups) * COLUMNS + simdgroup * EACH;
    if (first >= params.n) return; // whole SIMD-groups
    Weight weight{w, scales, zeros};
#if SPLIT
    Output to{bias, out, out_k, out_v};
#else
    Output to{bias, out, aux};
#endif
    uint row[EACH];
    for (uint c = 0; c < EACH; ++c) row[c] = min(first + c, params.n - 1u); // past the end: computed, not stored
    uint row_a[ROWS_A];
    for (uint m = 0; m < ROWS_A; ++m) row_a[m] = min(m, params.m - 1u);
    float sum[EACH][ROWS_A] = {};
#if NORM
    float squares[ROWS_A] = {};
#endif
    for (uint packet = lane; packet < params.packets; packet += 32u) {
        Packet codes[EACH];
        float scale[EACH][SPANS], zero[EACH][SPANS];
        for (uint c = 0; c < EACH; ++c) {
            codes[c] = load_packet(weight, params, row[c], packet);
            for (uint s = 0; s < SPANS; ++s) {
                uint of = scale_group(params, packet * PACKET + s * (PACKET / SPANS));
                scale[c][s] = load_scale(weight, params, row[c], of);
                zero[c][s] = load_zero(weight, params, row[c], of) / CODE_UNIT;
            }
        }
        for (uint s = 0; s < SPANS; ++s) {
            // The chunks of 8 that share a scale.
            float total[ROWS_A] = {};
            float part[EACH][ROWS_A] = {};
            for (uint h = s * SPAN_CHUNKS; h < (s + 1u) * SPAN_CHUNKS; ++h) {
                uint k = packet * PACKET + h * 8u;
                Eight x[ROWS_A];
                for (uint m = 0; m < ROWS_A; ++m) {
                    x[m] = widen(load_eight(a, params, row_a[m], k));
#if NORM
                    squares[m] = dot_eight(x[m], x[m], squares[m]);
                    x[m] = times(x[m], gamma_eight(gamma, params, k));
#endif
                    if (OFFSET_CODES) total[m] += sum_eight(x[m]);
                }
                for (uint c = 0; c < EACH; ++c) {
                    Eight v = decode(codes[c], h);
                    for (uint m = 0; m < ROWS_A; ++m) part[c][m] = dot_eight(v, x[m], part[c][m]);
                }
            }
            for (uint c = 0; c < EACH; ++c) {
                for (uint m = 0; m < ROWS_A; ++m) sum[c][m] += scale[c][s] * (part[c][m] - zero[c][s] * total[m]);
            }
        }
    }
    float mine = 0.0f;
    for (uint m = 0; m < ROWS_A; ++m) {
        float factor = CODE_UNIT;
#if NORM
        factor *= norm_factor(params, simd_sum(squares[m]));
#endif
        for (uint c = 0; c < EACH; ++c) {
            float all = simd_sum(sum[c][m]) * factor;
            mine = lane == c * ROWS_A + m ? all : mine;
        }
    }
    uint column = lane / ROWS_A, m = lane % ROWS_A;
    bool inside = lane < VALUES && first + column < params.n && m < params.m;
#if PAIR
    float up = simd_shuffle_down(mine, ROWS_A);
    if (inside && column % 2u == 0u) finish_pair(to, params, mine, up, m, first + column);
#else
    if (inside) finish(to, params, mine, m, first + column);
#endif
}

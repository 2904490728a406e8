// Attention over many queries: online softmax, out = softmax(scale·Q·Kᵀ + mask)·V, on simdgroup matrices with f32 sums.
// The query heads of one KV head are folded into rows; a threadgroup owns 64 rows of a (sequence, KV head), each SIMD-group eight
// of them, whose queries and sums it keeps in matrices. All threads stage KEYS keys, then their values, in one tile (as halves
// where codes are exact in them, scales apart), so that 64 rows share each load and every format has one text.
// Scores pass through threadgroup memory of the SIMD-group: four lanes take a row, mask it, and put probabilities back, which
// become matrices again. Sums fade by a product with a diagonal matrix, only when a maximum has grown. No lane layout is assumed.
// EXTRAS == paged: keys and values are rows of a cache in blocks. varlen: sequences are packed one behind the other; the grid
// has tiles for the longest, and those past the end of a shorter one leave at once.
struct Params {
    uint sq;        // queries of a sequence; varlen: of the longest
    uint kv_len;    // keys of the longest sequence
    uint capacity;  // tensors: keys from one sequence to the next
    uint heads; uint kv_heads;
    uint d4;        // fours of a head
    uint tiles;     // of 64 rows
    uint groups;
    uint causal;
    float scale;
    uint e4;        // fours of a row of V
    uint window;    // keys that a query sees; 0 for all
    float soft_cap; // 0 for none
    uint sinks; uint lse; uint bias; // whether there are any; bias: 2 for a tree
    uint bias_b; uint bias_h; uint bias_q; // steps of the bias from sequence to sequence, head to head, query to query
    uint block;     // rows of a block
    uint blocks;
    uint table;     // words of a sequence in the table: its length, then its blocks; 0 for block = sequence
};
//!include "common/grid.metal"
//!include "common/kv_decode.metal"
//!include "common/kinds.metal"
//!include "common/mask.metal"
#define UNROLLED _Pragma("clang loop unroll(full)")

constant constexpr uint ROWS = THREADS / 4u;
constant constexpr uint FRAGMENTS = W / 8u;  // matrices of a row of Q or of the sums
constant constexpr uint STEPS = KEYS / 8u;   // matrices of a row of scores
constant constexpr uint SCORES = KEYS + 4u;  // floats of such a row in memory; the four keep its banks apart
#if TK == f16
constant constexpr uint STRIDE = W + 8u;     // likewise, of the tile
#else
constant constexpr uint STRIDE = W + 4u;
#endif
using Four = vec<TK, 4>;

struct Sequence {
    uint index;
    uint sq;    // its queries
    uint len;   // and keys
    uint q_row; // rows of Q before it
    uint k_row; // rows of K before it, if they are not in blocks
};

inline Sequence sequence_at(constant Params& params, device const uint* table, uint index) {
#if EXTRAS == varlen
    // Where the queries and the keys of each sequence start, and the ends.
    uint q_start = table[2u * index], k_start = table[2u * index + 1u];
    uint sq = table[2u * index + 2u] - q_start, len = table[2u * index + 3u] - k_start;
    return Sequence{index, sq, len, q_start * params.heads, k_start * params.kv_heads};
#else
    uint len = params.kv_len;
#if EXTRAS == paged
    if (params.table != 0u) len = min(table[index * params.table], len);
#endif
    uint q_row = index * params.sq * params.heads;
    return Sequence{index, params.sq, len, q_row, index * params.capacity * params.kv_heads};
#endif
}

// Where the rows of a key are. A wild number of a block stands for the last.
inline uint place_of(constant Params& params, device const uint* table, uint key, Sequence sequence, uint head) {
#if EXTRAS == paged
    uint at = key / params.block;
    uint number = sequence.index;
    if (params.table != 0u) number = min(table[sequence.index * params.table + 1u + at], params.blocks - 1u);
    return (number * params.kv_heads + head) * params.block + key - at * params.block;
#else
    return sequence.k_row + key * params.kv_heads + head;
#endif
}

// What is in a tile: the first key, the end of all keys, and whose they are.
struct Span {
    uint key0;
    uint end;
    Sequence sequence;
    uint head;
};

// Stages KEYS rows of `pieces` pieces. Keys past the end repeat the last one, as what lies behind is not ours; columns past the
// last piece repeat that one: queries are 0 there, and sums are not stored.
inline void stage(
    constant Params& params, device const Raw* from, device const uint* table, uint pieces, Span span, uint index,
    threadgroup Four* tile) {
    for (uint i = index; i < KEYS * FRAGMENTS; i += THREADS) {
        uint key = i / FRAGMENTS, piece = i % FRAGMENTS;
        uint place = place_of(params, table, min(span.key0 + key, span.end - 1u), span.sequence, span.head);
        Eight codes = codes_of(from[place * pieces + min(piece, pieces - 1u)]);
        uint at = (key * STRIDE + piece * 8u) / 4u;
        tile[at] = Four(codes.lo);
        tile[at + 1u] = Four(codes.hi);
    }
}

[[max_total_threads_per_threadgroup(THREADS)]]
kernel void attention(
    constant Params& params [[buffer(0)]],
    device const uint4* q [[buffer(1)]],
    device const Raw* k [[buffer(2)]],
    device const Raw* v [[buffer(3)]],
#if EXTRAS == paged
    device const uint* scales [[buffer(4)]],
    device const uint* table [[buffer(5)]],
    device const uint* sinks [[buffer(6)]],
    device uint* out [[buffer(7)]],
    device float* lse [[buffer(8)]],
#else
#if EXTRAS == varlen
    device const uint* table [[buffer(4)]],
#else
    device const uint* bias [[buffer(4)]],
#endif
    device const uint* sinks [[buffer(5)]],
    device uint* out [[buffer(6)]],
    device float* lse [[buffer(7)]],
#endif
    uint3 group [[threadgroup_position_in_grid]],
    uint3 groups [[threadgroups_per_grid]],
    uint index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
    threadgroup Four tile[KEYS * STRIDE / 4u];
    threadgroup float exchange[ROWS * SCORES];
#if QUANTISED
    threadgroup float2 key_scales[KEYS];
#endif
    uint number = group_index(group, groups);
    if (number >= params.groups) return;
#if EXTRAS == paged
    device const uint* mask = sinks; // never with a bias
#elif EXTRAS == varlen
    device const uint* mask = table; // none
#else
    device const uint* mask = bias;
    device const uint* table = bias; // none
#endif
    uint d8 = params.d4 / 2u, e8 = params.e4 / 2u;
    uint ratio = params.heads / params.kv_heads;
    uint head = number / params.tiles % params.kv_heads;
    Sequence sequence = sequence_at(params, table, number / (params.tiles * params.kv_heads));
    uint sq = sequence.sq, len = sequence.len;
    uint rows = sq * ratio;
    // The last tiles see the most keys under a causal mask, so they start first.
    uint first = (params.tiles - 1u - number % params.tiles) * ROWS;
    if (first >= rows) return; // whole threadgroups

    // A SIMD-group's rows from `own` on; those past the last stand for it: they are computed and not stored.
    uint own = first + simdgroup * 8u;
    uint part = lane % 4u;
    uint row = min(own + lane / 4u, rows - 1u);
    uint2 sees = visible(params, row, sq, len);
    uint own_begin = visible(params, min(own, rows - 1u), sq, len).x;
    uint own_end = visible(params, min(own + 7u, rows - 1u), sq, len).y;
    uint head_at = sequence.q_row + row / ratio * params.heads + head * ratio + row % ratio;
    uint bias_at = params.bias == BIAS ? bias_start(params, row, sequence.index, head) : 0u;
    threadgroup float* mine = exchange + simdgroup * (8u * SCORES);
    threadgroup TK* codes = (threadgroup TK*)tile;

    simdgroup_matrix<TQ, 8, 8> query[FRAGMENTS];
    simdgroup_float8x8 sum[FRAGMENTS];
#if TQ == f16
    threadgroup TQ* staged = codes + simdgroup * (8u * KEYS);
    const uint staged_row = KEYS;
#else
    threadgroup TQ* staged = mine;
    const uint staged_row = SCORES;
#endif
    UNROLLED
    for (uint f = 0; f < FRAGMENTS; f += STEPS) {
        uint piece = f + part;
        if (part < STEPS) {
            Eight x = times(load_kind(q, head_at * d8 + min(piece, d8 - 1u), KIND), piece < d8 ? 1.0f : 0.0f);
            for (uint e = 0; e < 4u; ++e) {
                staged[lane / 4u * staged_row + part * 8u + e] = TQ(x.lo[e]);
                staged[lane / 4u * staged_row + part * 8u + 4u + e] = TQ(x.hi[e]);
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        UNROLLED
        for (uint j = 0; j < STEPS && f + j < FRAGMENTS; ++j) {
            simdgroup_load(query[f + j], staged + j * 8u, staged_row);
            sum[f + j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    float top = MASKED, total = 0.0f; // total: of this lane's keys

    uint end = visible(params, min(first + ROWS, rows) - 1u, sq, len).y;
    for (uint key0 = visible(params, first, sq, len).x; key0 < end; key0 += KEYS) {
        Span span{key0, end, sequence, head};
        bool active = own < rows && key0 < own_end && key0 + KEYS > own_begin;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        stage(params, k, table, d8, span, index, tile);
#if QUANTISED
        if (index < KEYS) {
            key_scales[index] = scales_of(scales, place_of(params, table, min(key0 + index, end - 1u), sequence, head));
        }
#endif
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (active) {
            simdgroup_float8x8 scores[STEPS];
            UNROLLED
            for (uint j = 0; j < STEPS; ++j) scores[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
            UNROLLED
            for (uint f = 0; f < FRAGMENTS; ++f) {
                UNROLLED
                for (uint j = 0; j < STEPS; ++j) {
                    simdgroup_matrix<TK, 8, 8> keys;
                    simdgroup_load(keys, codes + j * (8u * STRIDE) + f * 8u, STRIDE, ulong2(0, 0), true);
                    simdgroup_multiply_accumulate(scores[j], query[f], keys, scores[j]);
                }
            }
            UNROLLED
            for (uint j = 0; j < STEPS; ++j) simdgroup_store(scores[j], mine + j * 8u, SCORES);
            simdgroup_barrier(mem_flags::mem_threadgroup);

            float score[KEYS / 4u];
            bool seen[KEYS / 4u];
            threadgroup float* line = mine + lane / 4u * SCORES + part;
            float most = top;
            for (uint i = 0; i < KEYS / 4u; ++i) {
                uint key = key0 + part + 4u * i;
                float factor = params.scale;
#if QUANTISED
                factor *= key_scales[part + 4u * i].x;
#endif
                score[i] = bent(params, line[4u * i] * factor);
                if (params.bias == BIAS) score[i] += as_type<float>(mask[bias_at + min(key, end - 1u)]);
                seen[i] = key >= sees.x && key < sees.y && tree_sees(params, mask, row, key, len, sequence.index);
                most = max(most, seen[i] ? score[i] : MASKED);
            }
            most = max(most, simd_shuffle_xor(most, 1u));
            most = max(most, simd_shuffle_xor(most, 2u));
            float fade = exp(top - most);
            top = most;
            total *= fade;
            if (simd_any(fade != 1.0f)) {
                simdgroup_barrier(mem_flags::mem_threadgroup);
                mine[lane / 4u * SCORES + part] = lane / 4u == part ? fade : 0.0f;
                mine[lane / 4u * SCORES + part + 4u] = lane / 4u == part + 4u ? fade : 0.0f;
                simdgroup_barrier(mem_flags::mem_threadgroup);
                simdgroup_float8x8 fades;
                simdgroup_load(fades, mine, SCORES);
                simdgroup_barrier(mem_flags::mem_threadgroup);
                UNROLLED
                for (uint f = 0; f < FRAGMENTS; ++f) simdgroup_multiply(sum[f], fades, sum[f]);
            }
            for (uint i = 0; i < KEYS / 4u; ++i) {
                // A row that has seen nothing yet has the sentinel as its maximum, so the mask is applied here too.
                float p = seen[i] ? exp(score[i] - most) : 0.0f;
                total += p;
#if QUANTISED
                p *= key_scales[part + 4u * i].y;
#endif
                line[4u * i] = p;
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        stage(params, v, table, e8, span, index, tile);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (active) {
            simdgroup_float8x8 p[STEPS];
            UNROLLED
            for (uint j = 0; j < STEPS; ++j) simdgroup_load(p[j], mine + j * 8u, SCORES);
            UNROLLED
            for (uint f = 0; f < FRAGMENTS; ++f) {
                UNROLLED
                for (uint j = 0; j < STEPS; ++j) {
                    simdgroup_matrix<TK, 8, 8> values;
                    simdgroup_load(values, codes + j * (8u * STRIDE) + f * 8u, STRIDE);
                    simdgroup_multiply_accumulate(sum[f], p[j], values, sum[f]);
                }
            }
        }
    }

    total += simd_shuffle_xor(total, 1u);
    total += simd_shuffle_xor(total, 2u);
    // A sink is one more key with a value of 0.
    float fade = 1.0f;
    if (params.sinks != 0u) {
        float sink = as_type<float>(sinks[head * ratio + row % ratio]);
        float most = max(top, sink);
        fade = exp(top - most);
        total = total * fade + exp(sink - most);
        top = most;
    }
    float norm = total > 0.0f ? fade / total : 0.0f;
    bool stored = own + lane / 4u < rows;
    if (params.lse != 0u && stored && part == 0u) lse[head_at] = total > 0.0f ? top + log(total) : MASKED;
    UNROLLED
    for (uint f = 0; f < FRAGMENTS; f += STEPS) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
        UNROLLED
        for (uint j = 0; j < STEPS && f + j < FRAGMENTS; ++j) simdgroup_store(sum[f + j], mine + j * 8u, SCORES);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        uint piece = f + part;
        if (part >= STEPS || piece >= e8 || !stored) continue;
        threadgroup float* from = mine + lane / 4u * SCORES + part * 8u;
        for (uint x = 0; x < 2u; ++x) {
            float4 value = float4(from[4u * x], from[4u * x + 1u], from[4u * x + 2u], from[4u * x + 3u]) * norm;
            store_kind(out, (head_at * e8 + piece) * 2u + x, value, KIND);
        }
    }
}

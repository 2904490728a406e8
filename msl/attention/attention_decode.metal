// Attention of few queries over many keys (flash-decoding): a threadgroup takes one split of the keys for up to R folded rows
// (queries × query heads of one KV head). Each SIMD-group walks 32 keys at a time with an online softmax of its own. For K and V
// it is TEAMS teams of TL lanes: a team holds one row, each lane a piece of eight elements, BATCH rows in flight. For scores it
// is 32 lanes with a key each: so the place of a key is found once, and masks and scales are applied by one lane. Scores and
// probabilities change hands in threadgroup memory that belongs to the SIMD-group, so there is no threadgroup barrier in the loop.
// With one split the result is stored; with more, unnormalised sums, then row maxima (log2) and totals, for the merge.
struct Params {
    uint sq; uint kv_len; uint heads; uint kv_heads; // kv_len: of the longest sequence
    uint d8;           // pieces of a row of Q and K
    uint e8;           // pieces of a row of V
    uint block_rows;   // rows of the cache from one block or sequence to the next,
    uint head_rows;    // from one head to the next,
    uint key_rows;     // from one key to the next
    uint block;        // keys of a block
    uint table;        // words of a sequence in the table: its length, then its blocks; 0 for block = sequence
    uint tiles;        // of R rows
    uint splits;
    uint groups;
    uint stats;        // where the maxima and totals start in the workspace
    uint causal;
    uint window;       // keys that a query sees, itself included; 0 for all
    uint kind;         // of Q and out: 0 f32, 1 f16, 2 bf16
    float scale;       // with the factor log2 e
    float soft_cap;    // likewise; 0 for none
    uint blocks;       // of the cache
    uint bias; uint bias_b; uint bias_h; uint bias_q; // 1 if there is one, steps by sequence, head, query; or a tree
};
//!include "common/grid.metal"
//!include "common/kv_decode.metal"
//!include "common/kinds.metal"
//!include "common/mask.metal"

constant constexpr uint SIMDS = THREADS / 32u;
constant constexpr uint TEAMS = 32u / TL;
constant constexpr float LOG2_E = 1.4426950408889634f;

// Sums over the lanes of a team. Of one row, every lane has it; of four, lane t that of row t / (TL / 4): lanes halve what
// they hold at each exchange.
inline float team_sum(thread const float* sum, uint t) {
#if R == 4
    bool far = (t & (TL / 2u)) != 0u;
    bool near = (t & (TL / 4u)) != 0u;
    float a = (far ? sum[2] : sum[0]) + simd_shuffle_xor(far ? sum[0] : sum[2], TL / 2u);
    float b = (far ? sum[3] : sum[1]) + simd_shuffle_xor(far ? sum[1] : sum[3], TL / 2u);
    float all = (near ? b : a) + simd_shuffle_xor(near ? a : b, TL / 4u);
    for (uint step = TL / 8u; step > 0u; step >>= 1u) all += simd_shuffle_xor(all, step);
#else
    float all = sum[0];
    for (uint step = TL / 2u; step > 0u; step >>= 1u) all += simd_shuffle_xor(all, step);
#endif
    return all;
}

[[max_total_threads_per_threadgroup(THREADS)]]
kernel void attention_decode(
    constant Params& params [[buffer(0)]],
    device const uint4* q [[buffer(1)]],
    device const Raw* k [[buffer(2)]],
    device const Raw* v [[buffer(3)]],
    device const uint* scales [[buffer(4)]],
    device const uint* table [[buffer(5)]],
    device const uint* bias [[buffer(6)]],
    device uint* out [[buffer(7)]],
    device float* workspace [[buffer(8)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint3 groups [[threadgroups_per_grid]],
    uint index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float scores[SIMDS * R * 32u]; // then probabilities
    threadgroup float4 sums[SIMDS * R * TL * 2u];
    threadgroup float tops[SIMDS * R];
    threadgroup float totals[SIMDS * R];
    uint number = group_index(group, groups);
    if (number >= params.groups) return;
    // Tiles of rows that read the same keys are neighbours in the grid.
    uint ratio = params.heads / params.kv_heads;
    uint rows = params.sq * ratio;
    uint first = number % params.tiles * R;
    uint split = number / params.tiles % params.splits;
    uint pair = number / (params.tiles * params.splits);
    uint head = pair % params.kv_heads;
    uint sequence = pair / params.kv_heads;
    uint len = params.kv_len;
    if (params.table != 0u) len = min(table[sequence * params.table], len);

    // This split of what the rows see together.
    uint from_key = visible(params, first, params.sq, len).x;
    uint to_key = visible(params, min(first + R, rows) - 1u, params.sq, len).y;
    uint share = (max(to_key, from_key) - from_key + params.splits - 1u) / params.splits;
    uint begin = min(from_key + split * share, to_key);
    uint end = min(begin + share, to_key);

    uint t = lane % TL, team = lane / TL;
    uint k_piece = min(t, params.d8 - 1u), v_piece = min(t, params.e8 - 1u);
    uint2 sees[R];
    Eight query[R], sum[R];
    float top[R], total[R]; // total: of this lane's keys
    for (uint r = 0; r < R; ++r) {
        uint row = min(first + r, rows - 1u); // past the last: computed, not stored
        sees[r] = visible(params, row, params.sq, len);
        uint at = (sequence * params.sq + row / ratio) * params.heads + head * ratio + row % ratio;
        float factor = t < params.d8 ? params.scale : 0.0f;
        query[r] = times(load_kind(q, at * params.d8 + k_piece, params.kind), factor);
        sum[r] = Eight{float4(0.0f), float4(0.0f)};
        top[r] = MASKED;
        total[r] = 0.0f;
    }
    threadgroup float* mine = scores + simdgroup * (R * 32u);

    for (uint key0 = begin + simdgroup * 32u; key0 < end; key0 += THREADS) {
        // A wild number of a block stands for the last. Lanes past the end repeat the last key: what is behind is not ours.
        uint key = min(key0 + lane, end - 1u);
        uint in_block = key / params.block;
        uint of = sequence;
        if (params.table != 0u) of = min(table[sequence * params.table + 1u + in_block], params.blocks - 1u);
        uint place = of * params.block_rows + head * params.head_rows + (key - in_block * params.block) * params.key_rows;

        for (uint pass = 0; pass < TL; pass += BATCH) {
            Raw raw[BATCH];
            for (uint u = 0; u < BATCH; ++u) {
                raw[u] = k[simd_shuffle(place, (pass + u) * TEAMS + team) * params.d8 + k_piece];
            }
            for (uint u = 0; u < BATCH; ++u) {
                Eight codes = codes_of(raw[u]);
                float part[R];
                for (uint r = 0; r < R; ++r) part[r] = dot_eight(codes, query[r], 0.0f);
                float score = team_sum(part, t);
                if (t % (TL / R) == 0u) mine[t / (TL / R) * 32u + (pass + u) * TEAMS + team] = score;
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        float2 scale = scales_of(scales, place);
        for (uint r = 0; r < R; ++r) {
            float score = bent(params, mine[r * 32u + lane] * scale.x);
            if (params.bias == BIAS) {
                score += as_type<float>(bias[bias_start(params, first + r, sequence, head) + key]) * LOG2_E;
            }
            bool seen = key0 + lane < end && key >= sees[r].x && key < sees[r].y &&
                        tree_sees(params, bias, first + r, key, len, sequence);
            float most = max(top[r], simd_max(seen ? score : MASKED));
            float fade = exp2(top[r] - most);
            // While all is masked the maximum is the sentinel itself: the mask decides, not the difference.
            float p = seen ? exp2(score - most) : 0.0f;
            top[r] = most;
            total[r] = fma(total[r], fade, p);
            sum[r] = times(sum[r], fade);
            mine[r * 32u + lane] = p * scale.y;
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint pass = 0; pass < TL; pass += BATCH) {
            Raw raw[BATCH];
            for (uint u = 0; u < BATCH; ++u) {
                raw[u] = v[simd_shuffle(place, (pass + u) * TEAMS + team) * params.e8 + v_piece];
            }
            for (uint u = 0; u < BATCH; ++u) {
                Eight codes = codes_of(raw[u]);
                for (uint r = 0; r < R; ++r) {
                    float4 p = float4(mine[r * 32u + (pass + u) * TEAMS + team]);
                    sum[r].lo = fma(codes.lo, p, sum[r].lo);
                    sum[r].hi = fma(codes.hi, p, sum[r].hi);
                }
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }

    // The SIMD-group's sums of each row, then the threadgroup's.
    for (uint r = 0; r < R; ++r) {
        for (uint step = TL; step < 32u; step <<= 1u) {
            sum[r].lo += simd_shuffle_xor(sum[r].lo, step);
            sum[r].hi += simd_shuffle_xor(sum[r].hi, step);
        }
        total[r] = simd_sum(total[r]);
        uint at = simdgroup * R + r;
        if (team == 0u) {
            sums[(at * TL + t) * 2u] = sum[r].lo;
            sums[(at * TL + t) * 2u + 1u] = sum[r].hi;
        }
        if (lane == 0u) {
            tops[at] = top[r];
            totals[at] = total[r];
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    uint fours = params.e8 * 2u;
    for (uint i = index; i < R * fours; i += THREADS) {
        uint r = i / fours, c = i % fours, row = first + r;
        if (row >= rows) break;
        float most = MASKED, all = 0.0f;
        float4 value = float4(0.0f);
        for (uint s = 0; s < SIMDS; ++s) most = max(most, tops[s * R + r]);
        for (uint s = 0; s < SIMDS; ++s) {
            float weight = exp2(tops[s * R + r] - most);
            all += weight * totals[s * R + r];
            value += weight * sums[(s * R + r) * (TL * 2u) + c];
        }
        uint at = (sequence * params.sq + row / ratio) * params.heads + head * ratio + row % ratio;
        if (params.splits == 1u) {
            store_kind(out, at * fours + c, all > 0.0f ? value / all : float4(0.0f), params.kind);
            continue;
        }
        uint part = at * params.splits + split;
        for (uint x = 0; x < 4u; ++x) workspace[(part * fours + c) * 4u + x] = value[x];
        if (c == 0u) {
            workspace[params.stats + 2u * part] = most;
            workspace[params.stats + 2u * part + 1u] = all;
        }
    }
}

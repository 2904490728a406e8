// Attention over many queries: online softmax, out = softmax(scale·Q·Kᵀ + mask)·V.
// The query heads of one KV head are folded into rows; a workgroup owns 64 rows of a (batch, KV head) and walks the
// keys 32 at a time. Its threads form a 16 × TC grid; thread (tr, tc) owns rows tr + 16·i, which ride in the four
// components of vec4s, keys tc + TC·k of the scores and the vec4 columns tc + TC·j of the result, all in registers.
// Everything else shares one pool of 16 KiB, staged as f32 by all threads: slices of 32 elements of Q and K while
// scores are made, then the 64 × 32 probabilities and a few rows of V. So every head size fits the smallest adapter.
// Slices are XOR-swizzled by row: threads of a subgroup read one column of many rows without bank conflicts.
// Keys and values of a cache in blocks (EXTRAS == paged) are decoded as they are staged. Where sequences have lengths of
// their own (varlen), the grid has tiles for the longest, and those past the end of a shorter one leave at once.
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/prefill.wgsl"

const THREADS = 16u * TC;
const KEYS = 32u;               // of a tile
const OWN = KEYS / TC;          // keys of a thread
const Q_LOADS = 512u / THREADS; // vec4s of a slice of Q that a thread stages
const K_LOADS = 256u / THREADS;
const WIDTH = TC * J;           // staged vec4 columns of V
const V_AT = 512u;              // in the pool: Q or probabilities before it, K or V from it,
const MAX_AT = 768u;            // and behind K the exchange of row maxima
const MASKED = -1e30;
var<workgroup> pool: array<vec4<f32>, 1024>;

struct Spot { tr: u32, tc: u32, shuffles: bool }

// The maximum over the threads of a row, for the four rows of this thread.
fn rows_max(value: vec4<f32>, spot: Spot) -> vec4<f32> {
    var most = value;
#if SUBGROUP
    if spot.shuffles {
        for (var step = 1u; step < TC; step <<= 1u) { most = max(most, subgroupShuffleXor(most, step)); }
        workgroupBarrier();
        return most;
    }
#endif
    pool[MAX_AT + spot.tr * TC + spot.tc] = value;
    workgroupBarrier();
    for (var i = 0u; i < TC; i++) { most = max(most, pool[MAX_AT + spot.tr * TC + i]); }
    return most;
}

fn rows_sum(value: vec4<f32>, spot: Spot) -> vec4<f32> {
    workgroupBarrier();
    pool[MAX_AT + spot.tr * TC + spot.tc] = value;
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var i = 0u; i < TC; i++) { sum += pool[MAX_AT + spot.tr * TC + i]; }
    return sum;
}

#if EXTRAS != none
// Which of a thread's four rows see a key that the causal mask lets through.
fn seen_in_tree(row0: u32, key: u32, len: u32, sequence: u32) -> vec4<bool> {
    if params.bias != TREE || (params.bias_h == 0u && key + params.sq < len) { return vec4(true); }
    return vec4(
        tree_sees(row0, key, len, sequence), tree_sees(row0 + 16u, key, len, sequence),
        tree_sees(row0 + 32u, key, len, sequence), tree_sees(row0 + 48u, key, len, sequence),
    );
}
#endif

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let group = group_index(place.group, place.groups);
    if group >= params.groups { return; }
    var spot = Spot(lane.thread / TC, lane.thread % TC, false);
    var id = lane.thread;
#if SUBGROUP
    // Shuffles need a row's threads in one subgroup: numbered by subgroup, with no subgroup partly filled.
    if lane.subgroup_size >= TC && lane.subgroups * lane.subgroup_size == THREADS {
        id = lane.subgroup * lane.subgroup_size + lane.subgroup_lane;
        spot = Spot(id / TC, id % TC, true);
    }
#endif
    let d4 = params.d4;
    let e4 = params.e4;
    let head = (group / params.tiles) % params.kv_heads;
    let sequence = sequence_at(group / (params.tiles * params.kv_heads));
    let len = sequence.len;
    let rows = sequence.sq * (params.heads / params.kv_heads);
    // The last tiles see the most keys under a causal mask, so they start first.
    let first = (params.tiles - 1u - group % params.tiles) * 64u;
    if first >= rows { return; }

    // Rows past the last stand in for it: they are computed and not stored.
    var q_at: array<u32, Q_LOADS>;
    for (var n = 0u; n < Q_LOADS; n++) {
        let row = min(first + id / 8u + n * (THREADS / 8u), rows - 1u);
        q_at[n] = query_row(row, head, sequence) * d4;
    }
    let row0 = first + spot.tr;
    let sq = sequence.sq;
    let limit = vec4(
        visible(row0, sq, len), visible(row0 + 16u, sq, len), visible(row0 + 32u, sq, len), visible(row0 + 48u, sq, len),
    );
    let end = visible(min(first + 63u, rows - 1u), sq, len);

#if EXTRAS != none
    let low = vec4(
        first_visible(row0, sq, len), first_visible(row0 + 16u, sq, len),
        first_visible(row0 + 32u, sq, len), first_visible(row0 + 48u, sq, len),
    );
    let begin = first_visible(first, sq, len) / KEYS * KEYS;
#if EXTRAS == tensors
    let bias_at = vec4(
        bias_start(row0, sequence.index, head), bias_start(row0 + 16u, sequence.index, head),
        bias_start(row0 + 32u, sequence.index, head), bias_start(row0 + 48u, sequence.index, head),
    );
#endif
#else
    const begin = 0u;
#endif

    var top = vec4(MASKED);
    var total = vec4<f32>(); // of this thread's keys only
    var acc: array<vec4<f32>, 4u * J>;
    for (var i = 0u; i < 4u * J; i++) { acc[i] = vec4<f32>(); }

    for (var key0 = begin; key0 < end; key0 += KEYS) {
        var s: array<vec4<f32>, OWN>;
        for (var i = 0u; i < OWN; i++) { s[i] = vec4<f32>(); }
        for (var slice = 0u; slice < d4; slice += 8u) {
            workgroupBarrier();
            let c = slice + id % 8u;
            let inside = c < d4;
            let column = min(c, d4 - 1u);
            for (var n = 0u; n < Q_LOADS; n++) {
                let row = id / 8u + n * (THREADS / 8u);
                let value = widen(q[q_at[n] + column]);
                pool[row * 8u + ((id ^ row) & 7u)] = select(vec4<f32>(), value, inside);
            }
#if EXTRAS == paged
            for (var i = id; i < 128u; i += THREADS) {
                let key = i / 4u;
                let piece = slice / 2u + i % 4u;
                let row = key_row(min(key0 + key, end - 1u), head, sequence);
                let eight = load_k(row, min(piece, d4 / 2u - 1u));
                let own = piece < d4 / 2u;
                let c = i % 4u * 2u;
                pool[V_AT + key * 8u + ((c ^ key) & 7u)] = select(vec4<f32>(), eight.part0, own);
                pool[V_AT + key * 8u + (((c + 1u) ^ key) & 7u)] = select(vec4<f32>(), eight.part1, own);
            }
#else
            for (var n = 0u; n < K_LOADS; n++) {
                let key = id / 8u + n * (THREADS / 8u);
                // Keys past the end are masked; their loads repeat the last one, as what lies behind is not ours.
                let value = widen(k[key_row(min(key0 + key, end - 1u), head, sequence) * d4 + column]);
                pool[V_AT + key * 8u + ((id ^ key) & 7u)] = select(vec4<f32>(), value, inside);
            }
#endif
            workgroupBarrier();
            for (var c = 0u; c < 8u; c++) {
                let at = spot.tr * 8u + ((c ^ spot.tr) & 7u);
                let rows4 = transpose(mat4x4(pool[at], pool[at + 128u], pool[at + 256u], pool[at + 384u]));
                for (var i = 0u; i < OWN; i++) {
                    let key = spot.tc + TC * i;
                    let kk = pool[V_AT + key * 8u + ((c ^ key) & 7u)];
                    s[i] += rows4[0] * kk.x;
                    s[i] += rows4[1] * kk.y;
                    s[i] += rows4[2] * kk.z;
                    s[i] += rows4[3] * kk.w;
                }
            }
        }

        var most = top;
        for (var i = 0u; i < OWN; i++) {
#if EXTRAS != none
            let key = key0 + spot.tc + TC * i;
            var score = bent(s[i] * params.scale);
#if EXTRAS == tensors
            if params.bias == 1u {
                let at = bias_at + min(key, end - 1u);
                score += bitcast<vec4<f32>>(vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]));
            }
#endif
            let seen = (vec4(key) < limit) & (vec4(key) >= low) & seen_in_tree(row0, key, len, sequence.index);
            s[i] = select(vec4(MASKED), score, seen);
#else
            s[i] = select(vec4(MASKED), s[i] * params.scale, vec4(key0 + spot.tc + TC * i) < limit);
#endif
            most = max(most, s[i]);
        }
        most = rows_max(most, spot);
        let fade = exp(top - most);
        top = most;
        total *= fade;
        for (var i = 0u; i < OWN; i++) {
            let key = spot.tc + TC * i;
            // A row that has seen nothing yet has the sentinel as its maximum, so the mask is applied here too.
#if EXTRAS != none
            let at = key0 + key;
            let seen = (vec4(at) < limit) & (vec4(at) >= low) & seen_in_tree(row0, at, len, sequence.index);
            let p = select(vec4<f32>(), exp(s[i] - most), seen);
#else
            let p = select(vec4<f32>(), exp(s[i] - most), vec4(key0 + key) < limit);
#endif
            total += p;
            pool[key * 16u + spot.tr] = p;
        }
        for (var j = 0u; j < J; j++) {
            acc[4u * j] *= fade.x;
            acc[4u * j + 1u] *= fade.y;
            acc[4u * j + 2u] *= fade.z;
            acc[4u * j + 3u] *= fade.w;
        }
        for (var part = 0u; part < KEYS; part += V_KEYS) {
            workgroupBarrier();
#if EXTRAS == paged
            for (var i = id; i < V_KEYS * (WIDTH / 2u); i += THREADS) {
                let row = key_row(min(key0 + part + i / (WIDTH / 2u), end - 1u), head, sequence);
                let eight = load_v(row, min(i % (WIDTH / 2u), e4 / 2u - 1u));
                pool[V_AT + 2u * i] = eight.part0;
                pool[V_AT + 2u * i + 1u] = eight.part1;
            }
#else
            for (var i = id; i < V_KEYS * WIDTH; i += THREADS) {
                let key = min(key0 + part + i / WIDTH, end - 1u);
                pool[V_AT + i] = widen(v[key_row(key, head, sequence) * e4 + min(i % WIDTH, e4 - 1u)]);
            }
#endif
            workgroupBarrier();
            for (var key = 0u; key < V_KEYS; key++) {
                let p = pool[(part + key) * 16u + spot.tr];
                for (var j = 0u; j < J; j++) {
                    let value = pool[V_AT + key * WIDTH + j * TC + spot.tc];
                    acc[4u * j] += p.x * value;
                    acc[4u * j + 1u] += p.y * value;
                    acc[4u * j + 2u] += p.z * value;
                    acc[4u * j + 3u] += p.w * value;
                }
            }
        }
    }

    total = rows_sum(total, spot);
#if EXTRAS != none
    // A sink is one more key with a value of 0.
    var fade = vec4(1.0);
    if params.sinks != 0u {
        let ratio = params.heads / params.kv_heads;
        var sink = vec4<f32>();
        for (var i = 0u; i < 4u; i++) { sink[i] = sink_of(head * ratio + (row0 + 16u * i) % ratio); }
        let most = max(top, sink);
        fade = exp(top - most);
        total = total * fade + exp(sink - most);
        top = most;
    }
    let norm = select(vec4<f32>(), fade / total, total > vec4<f32>());
    let sum = select(vec4(MASKED), top + log(total), total > vec4<f32>());
#else
    let norm = select(vec4<f32>(), 1.0 / total, total > vec4<f32>());
#endif
    for (var i = 0u; i < 4u; i++) {
        let row = row0 + 16u * i;
        if row < rows {
            let head_at = query_row(row, head, sequence);
#if EXTRAS != none
            if params.lse != 0u && spot.tc == 0u { lse[head_at] = sum[i]; }
#endif
            let at = head_at * e4;
            for (var j = 0u; j < J; j++) {
                let column = j * TC + spot.tc;
                if column < e4 { out[at + column] = narrow(acc[4u * j + i] * norm[i]); }
            }
        }
    }
}

// Attention of few queries over many keys (flash-decoding): one workgroup takes one split of the keys for up to RT
// folded rows (queries × query heads of one KV head), so that K and V are read once. It walks CHUNK keys at a time:
// 1. scores: four threads a key, each with 16-byte loads of every fourth 8-element piece, four keys in flight;
// 2. softmax: THREADS / RT threads a row, on scores in workgroup memory;
// 3. result: one thread a piece of 8 columns, thread groups on different keys, summed at the end of the split.
// K and V are not staged: every element is used by one thread, for all rows at once.
// With one split the result is stored; with more, the unnormalised sums, then row maxima and totals, for the merge.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"

struct Params {
    sq: u32, kv_len: u32, capacity: u32, heads: u32, kv_heads: u32,
    d8: u32,         // 8-element pieces of a head
    tiles: u32,      // of RT rows
    splits: u32,
    split_keys: u32, // keys of a split
    groups: u32,
    stats: u32,      // where the maxima and totals start in the workspace
    causal: u32,
    scale: f32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> q: array<vec4<T>>;
#if T == f16
// As words: one 16-byte load brings eight values.
@group(0) @binding(1) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<u32>>;
#else
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
#endif
@group(0) @binding(3) var<storage, read_write> out: array<T>;
@group(0) @binding(4) var<storage, read_write> workspace: array<f32>;

struct Piece { a: vec4<f32>, b: vec4<f32> }
#if T == f16
fn unpack(w: vec4<u32>) -> Piece {
    return Piece(vec4(unpack2x16float(w.x), unpack2x16float(w.y)), vec4(unpack2x16float(w.z), unpack2x16float(w.w)));
}
fn load_k(i: u32) -> Piece { return unpack(k[i]); }
fn load_v(i: u32) -> Piece { return unpack(v[i]); }
#else
fn load_k(i: u32) -> Piece { return Piece(k[2u * i], k[2u * i + 1u]); }
fn load_v(i: u32) -> Piece { return Piece(v[2u * i], v[2u * i + 1u]); }
#endif

const THREADS = 128u;
const FLIGHT = 4u;              // loads that a thread has in flight
const QUADS = THREADS / 4u;
const TEAM = THREADS / RT;      // threads of a row in the softmax
const MASKED = -1e30;
#if SUBGROUP
const PARTS = 1u;
#else
const PARTS = 4u;               // a score is kept as the parts of its four threads
#endif
var<workgroup> q_tile: array<vec4<f32>, RT * D_MAX / 4u>;
var<workgroup> scores: array<f32, POOL>; // [CHUNK, RT, PARTS], at the end [thread groups, D]
var<workgroup> team_max: array<f32, THREADS>;
var<workgroup> team_sum: array<f32, THREADS>;
var<workgroup> fades: array<f32, RT>;
var<workgroup> tops: array<f32, RT>;
var<workgroup> totals: array<f32, RT>;

fn visible(row: u32) -> u32 {
    let ratio = params.heads / params.kv_heads;
    if row >= params.sq * ratio { return 0u; }
    if params.causal == 0u { return params.kv_len; }
    return u32(clamp(i32(row / ratio + params.kv_len) + 1 - i32(params.sq), 0, i32(params.kv_len)));
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let group = group_index(place.group, place.groups);
    if group >= params.groups { return; }
#if SUBGROUP
    // Four neighbours share a key; subgroups have at least four lanes and THREADS is a multiple of any width.
    let id = lane.subgroup * lane.subgroup_size + lane.subgroup_lane;
#else
    let id = lane.thread;
#endif
    let d8 = params.d8;
    let ratio = params.heads / params.kv_heads;
    let rows = params.sq * ratio;
    // Tiles of rows that read the same keys are neighbours in the grid.
    let first = (group % params.tiles) * RT;
    let split = (group / params.tiles) % params.splits;
    let pair = group / (params.tiles * params.splits);
    let head = pair % params.kv_heads;
    let batch = pair / params.kv_heads;
    let kv_first = (batch * params.capacity * params.kv_heads + head) * d8;
    let kv_stride = params.kv_heads * d8;
    let begin = split * params.split_keys;
    let end = min(begin + params.split_keys, params.kv_len);

    for (var i = id; i < RT * d8 * 2u; i += THREADS) {
        let row = min(first + i / (d8 * 2u), rows - 1u);
        let at = (batch * params.sq + row / ratio) * params.heads + head * ratio + row % ratio;
        q_tile[i] = vec4<f32>(q[at * d8 * 2u + i % (d8 * 2u)]) * params.scale;
    }

    let my_row = id / TEAM;
    let limit = visible(first + my_row);
    var top = MASKED;
    var total = 0.0;
    let column = id % d8;
    let threads = THREADS / d8;    // thread groups in step 3; threads past the last group rest
    let my_group = id / d8;
    var acc: array<vec4<f32>, 2u * RT>;
    for (var i = 0u; i < 2u * RT; i++) { acc[i] = vec4<f32>(); }

    for (var chunk = begin; chunk < end; chunk += CHUNK) {
        let n = min(CHUNK, end - chunk);
        workgroupBarrier();
        for (var key0 = id / 4u; key0 < n + id / 4u; key0 += QUADS * FLIGHT) {
            var s: array<f32, RT * FLIGHT>;
            for (var i = 0u; i < RT * FLIGHT; i++) { s[i] = 0.0; }
            for (var c = id % 4u; c < d8; c += 4u) {
                var kk: array<Piece, FLIGHT>;
                for (var u = 0u; u < FLIGHT; u++) {
                    // What lies past the end is not ours to read; the last key is read again and masked.
                    kk[u] = load_k(kv_first + min(chunk + key0 + u * QUADS, end - 1u) * kv_stride + c);
                }
                for (var r = 0u; r < RT; r++) {
                    let a = q_tile[r * d8 * 2u + c * 2u];
                    let b = q_tile[r * d8 * 2u + c * 2u + 1u];
                    for (var u = 0u; u < FLIGHT; u++) {
                        s[r * FLIGHT + u] += dot(a, kk[u].a) + dot(b, kk[u].b);
                    }
                }
            }
            for (var r = 0u; r < RT; r++) {
                for (var u = 0u; u < FLIGHT; u++) {
                    let at = ((key0 + u * QUADS) * RT + r) * PARTS;
                    var score = s[r * FLIGHT + u];
#if SUBGROUP
                    score += subgroupShuffleXor(score, 1u);
                    score += subgroupShuffleXor(score, 2u);
                    if id % 4u == 0u { scores[at] = score; }
#else
                    scores[at + id % 4u] = score;
#endif
                }
            }
        }
        workgroupBarrier();

        var most = top;
        for (var key = id % TEAM; key < n; key += TEAM) {
            let at = (key * RT + my_row) * PARTS;
#if SUBGROUP
            let score = scores[at];
#else
            let score = scores[at] + scores[at + 1u] + (scores[at + 2u] + scores[at + 3u]);
            scores[at] = score;
#endif
            most = max(most, select(MASKED, score, chunk + key < limit));
        }
        team_max[id] = most;
        workgroupBarrier();
        for (var i = 0u; i < TEAM; i++) { most = max(most, team_max[my_row * TEAM + i]); }
        let fade = exp(top - most);
        top = most;
        var sum = 0.0;
        for (var key = id % TEAM; key < n; key += TEAM) {
            let at = (key * RT + my_row) * PARTS;
            // While all is masked the maximum is the sentinel itself: the mask decides, not the difference.
            let p = select(0.0, exp(scores[at] - most), chunk + key < limit);
            scores[at] = p;
            sum += p;
        }
        team_sum[id] = sum;
        if id % TEAM == 0u { fades[my_row] = fade; }
        workgroupBarrier();
        total *= fade;
        for (var i = 0u; i < TEAM; i++) { total += team_sum[my_row * TEAM + i]; }

        for (var r = 0u; r < RT; r++) {
            acc[2u * r] *= fades[r];
            acc[2u * r + 1u] *= fades[r];
        }
        for (var key0 = select(n, my_group, my_group < threads); key0 < n; key0 += threads * FLIGHT) {
            var vv: array<Piece, FLIGHT>;
            for (var u = 0u; u < FLIGHT; u++) {
                vv[u] = load_v(kv_first + (chunk + min(key0 + u * threads, n - 1u)) * kv_stride + column);
            }
            for (var u = 0u; u < FLIGHT; u++) {
                let key = key0 + u * threads;
                let at = min(key, n - 1u) * RT * PARTS;
                for (var r = 0u; r < RT; r++) {
                    let p = select(0.0, scores[at + r * PARTS], key < n);
                    acc[2u * r] += p * vv[u].a;
                    acc[2u * r + 1u] += p * vv[u].b;
                }
            }
        }
    }

    if id % TEAM == 0u {
        tops[my_row] = top;
        totals[my_row] = total;
    }
    for (var r = 0u; r < RT; r++) {
        workgroupBarrier();
        if my_group < threads {
            for (var e = 0u; e < 4u; e++) {
                scores[id * 8u + e] = acc[2u * r][e];
                scores[id * 8u + 4u + e] = acc[2u * r + 1u][e];
            }
        }
        workgroupBarrier();
        let row = first + r;
        if row < rows {
            let at = (batch * params.sq + row / ratio) * params.heads + head * ratio + row % ratio;
            for (var d = id; d < d8 * 8u; d += THREADS) {
                var sum = 0.0;
                for (var g = 0u; g < threads; g++) { sum += scores[g * d8 * 8u + d]; }
                if params.splits == 1u {
                    out[at * d8 * 8u + d] = T(select(0.0, sum / totals[r], totals[r] > 0.0));
                } else {
                    workspace[(at * params.splits + split) * d8 * 8u + d] = sum;
                }
            }
            if params.splits > 1u && id == 0u {
                workspace[params.stats + (at * params.splits + split) * 2u] = tops[r];
                workspace[params.stats + (at * params.splits + split) * 2u + 1u] = totals[r];
            }
        }
    }
}

// Probabilities softmax(scale·Q·Kᵀ + mask) as f32 [B, Hq, Sq, Sk], for analysis: sinks take their share, but have no column.
// A workgroup owns 32 folded rows (queries × query heads of one KV head), eight threads a row, four keys a thread at a
// time. It makes the scores twice: the first walk over the keys finds each thread's maximum and total, which its row's
// threads merge; the second stores exp(score − maximum) / total. So no score is ever stored and read back. Slices of 32
// elements of Q and K are staged in workgroup memory, XOR-swizzled against bank conflicts.
//!include "common/fours.wgsl"
//!include "common/grid.wgsl"
//!include "common/bias.wgsl"
//!include "common/mask.wgsl"
//!include "common/tree.wgsl"

struct Params {
    sq: u32, kv_len: u32, capacity: u32, heads: u32, kv_heads: u32,
    d4: u32,       // vec4s of a row
    tiles: u32,    // of 32 rows
    groups: u32,
    causal: u32,
    scale: f32,
    window: u32,   // keys that a query sees; 0 for all
    soft_cap: f32, // 0 for none
    sinks: u32, lse: u32, bias: u32, // whether there are any; bias: 2 for a tree
    bias_b: u32, bias_h: u32, bias_q: u32, // steps of the bias from sequence to sequence, head to head, query to query
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> q: array<Fours>;
@group(0) @binding(1) var<storage, read> k: array<Fours>;
@group(0) @binding(2) var<storage, read> bias: array<u32>; // f32, or the words of a tree
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;
fn mask_word(at: u32) -> u32 { return bias[at]; }

const MASKED = -1e30;
var<workgroup> q_slice: array<vec4<f32>, 256>;
var<workgroup> k_slice: array<vec4<f32>, 256>;
var<workgroup> stats: array<vec2<f32>, 256>;

struct Row {
    folded: u32,   // rows past the last stand for it: they are computed and not stored
    at_q: u32,
    at_bias: u32,
    low: u32,      // the keys it sees
    high: u32,
}

// Scores of row thread / 8 with keys key0 + thread % 8 + 0, 8, 16, 24.
fn scores(key0: u32, thread: u32, own: Row, batch: u32, head: u32) -> vec4<f32> {
    let line = thread / 8u;
    let part = thread % 8u;
    let key_row = (batch * params.capacity + min(key0 + line, params.kv_len - 1u)) * params.kv_heads + head;
    var sum = vec4<f32>();
    for (var slice = 0u; slice < params.d4; slice += 8u) {
        let column = min(slice + part, params.d4 - 1u);
        let inside = slice + part < params.d4;
        workgroupBarrier();
        q_slice[line * 8u + ((part ^ line) & 7u)] = select(vec4<f32>(), widen(q[own.at_q + column]), inside);
        k_slice[line * 8u + ((part ^ line) & 7u)] = widen(k[key_row * params.d4 + column]);
        workgroupBarrier();
        for (var c = 0u; c < 8u; c++) {
            let x = q_slice[line * 8u + ((c ^ line) & 7u)];
            let at = part * 8u + ((c ^ part) & 7u); // 8 keys on, the swizzle is the same
            sum += vec4(
                dot(x, k_slice[at]), dot(x, k_slice[at + 64u]), dot(x, k_slice[at + 128u]), dot(x, k_slice[at + 192u]),
            );
        }
    }
    var score = bent(sum * params.scale);
    if params.bias == 1u {
        for (var i = 0u; i < 4u; i++) {
            score[i] += bitcast<f32>(bias[own.at_bias + min(key0 + part + 8u * i, params.kv_len - 1u)]);
        }
    }
    return score;
}

fn seen(key: u32, own: Row, batch: u32) -> bool {
    if key < own.low || key >= own.high { return false; }
    return params.bias != TREE || tree_sees(own.folded, key, params.kv_len, batch);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = group_index(group, groups);
    if index >= params.groups { return; }
    let ratio = params.heads / params.kv_heads;
    let rows = params.sq * ratio;
    let first = index % params.tiles * 32u;
    let head = (index / params.tiles) % params.kv_heads;
    let batch = index / (params.tiles * params.kv_heads);
    let row = min(first + thread / 8u, rows - 1u);
    let query_head = head * ratio + row % ratio;
    let at_lse = (batch * params.sq + row / ratio) * params.heads + query_head;
    var own = Row(row, at_lse * params.d4, 0u, first_visible(row, params.sq, params.kv_len),
        visible(row, params.sq, params.kv_len));
    if params.bias == 1u { own.at_bias = bias_start(row, batch, head); }

    var top = MASKED;
    var total = 0.0;
    for (var key0 = 0u; key0 < params.kv_len; key0 += 32u) {
        let score = scores(key0, thread, own, batch, head);
        for (var i = 0u; i < 4u; i++) {
            if seen(key0 + thread % 8u + 8u * i, own, batch) {
                let most = max(top, score[i]);
                total = total * exp(top - most) + exp(score[i] - most);
                top = most;
            }
        }
    }
    workgroupBarrier();
    stats[thread] = vec2(top, total);
    workgroupBarrier();
    var sink = MASKED;
    if params.sinks != 0u { sink = sinks[query_head]; }
    top = sink;
    for (var i = 0u; i < 8u; i++) { top = max(top, stats[thread / 8u * 8u + i].x); }
    total = 0.0;
    if params.sinks != 0u { total = exp(sink - top); }
    for (var i = 0u; i < 8u; i++) {
        let stat = stats[thread / 8u * 8u + i];
        total += stat.y * exp(stat.x - top);
    }
    let stored = first + thread / 8u < rows;
    if params.lse != 0u && stored && thread % 8u == 0u {
        lse[at_lse] = select(MASKED, top + log(total), total > 0.0);
    }

    let at_out = ((batch * params.heads + query_head) * params.sq + row / ratio) * params.kv_len;
    for (var key0 = 0u; key0 < params.kv_len; key0 += 32u) {
        let score = scores(key0, thread, own, batch, head);
        for (var i = 0u; i < 4u; i++) {
            let key = key0 + thread % 8u + 8u * i;
            var p = 0.0;
            if seen(key, own, batch) { p = exp(score[i] - top) / total; }
            if stored && key < params.kv_len { out[at_out + key] = p; }
        }
    }
}

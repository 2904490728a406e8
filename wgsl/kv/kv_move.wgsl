// Brings together rows at the end of sequences in a cache: of the last `nodes` rows, those that `path` names, in ascending
// order, become the first; K, V and scales of one layer in one launch.
// A thread owns one word of a row, of one sequence and head, and moves it for one row after the other: rows only move
// towards the front, so what it reads it has not written yet, and no other thread touches it.
//!include "common/grid.wgsl"

struct Params {
    all: u32,      // threads: sequences · heads · words of a row
    nodes: u32,
    kv_len: u32,   // of the longest sequence
    kv_heads: u32,
    k_words: u32,  // of a row
    v_words: u32,
    scales: u32,   // 1 if there are any
    block: u32,    // rows of a block
    blocks: u32,
    table: u32,    // words of a sequence in the table: its length, then its blocks; 0 for block = sequence
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> path: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read_write> k: array<u32>;
@group(0) @binding(3) var<storage, read_write> v: array<u32>;
@group(0) @binding(4) var<storage, read_write> scales: array<u32>;

// As in attention: a wild number of a block stands for the last.
fn row_of(key: u32, sequence: u32, head: u32) -> u32 {
    let at = key / params.block;
    var number = sequence;
    if params.table != 0u { number = min(table[sequence * params.table + 1u + at], params.blocks - 1u); }
    return (number * params.kv_heads + head) * params.block + key - at * params.block;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let id = group_index(group, groups) * THREADS + thread;
    if id >= params.all { return; }
    let words = params.k_words + params.v_words + params.scales;
    let word = id % words;
    let head = id / words % params.kv_heads;
    let sequence = id / words / params.kv_heads;
    var len = params.kv_len;
    if params.table != 0u { len = min(table[sequence * params.table], len); }
    if len < params.nodes { return; }
    let first = len - params.nodes;
    for (var i = 0u; i < params.nodes; i++) {
        let node = path[sequence * params.nodes + i];
        if node < i || node >= params.nodes { return; }
        if node == i { continue; }
        let src = row_of(first + node, sequence, head);
        let dst = row_of(first + i, sequence, head);
        if word < params.k_words {
            k[dst * params.k_words + word] = k[src * params.k_words + word];
        } else if word < params.k_words + params.v_words {
            let at = word - params.k_words;
            v[dst * params.v_words + at] = v[src * params.v_words + at];
        } else {
            scales[dst] = scales[src];
        }
    }
}

// What kernels of many queries read and write: parameters, bindings, and where the rows of a sequence are. EXTRAS is none (a
// scale and a causal mask), tensors (all options), varlen (sequences packed one behind the other; no bias, no tree) or
// paged (rows of a cache in blocks, in the format STORE; no bias). KIND is the dtype of Q and out, and of tensors K and V.
// Where STORE is not none, K and V are read in pieces of eight elements, as they are stored.
//!include "common/fours.wgsl"
//!include "common/mask.wgsl"
#if STORE != none
//!include "common/kv_decode.wgsl"
#endif
#if EXTRAS == tensors
//!include "common/bias.wgsl"
#endif
#if EXTRAS != none
//!include "common/tree.wgsl"
#endif

struct Params {
    sq: u32,       // queries of a sequence; varlen: of the longest
    kv_len: u32,   // keys of the longest sequence
    capacity: u32, // tensors: keys from one sequence to the next
    heads: u32, kv_heads: u32,
    d4: u32,       // vec4s of a row of Q and K
    tiles: u32,    // of 64 rows
    groups: u32,
    causal: u32,
    scale: f32,
    e4: u32,       // vec4s of a row of V and out
    // EXTRAS:
    window: u32,   // keys that a query sees; 0 for all
    soft_cap: f32, // 0 for none
    sinks: u32, lse: u32, bias: u32, // whether there are any; bias: 2 for a tree
    bias_b: u32, bias_h: u32, bias_q: u32, // steps of the bias from sequence to sequence, head to head, query to query
    // paged:
    block: u32,    // rows of a block
    blocks: u32,
    table: u32,    // words of a sequence in the table: its length, then its blocks; 0 for block = sequence
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> q: array<Fours>;
#if STORE == none
alias Piece = Fours;
#else
alias Piece = Raw;
#endif
#if EXTRAS == paged
@group(0) @binding(1) var<storage, read> k: array<Piece>;
@group(0) @binding(2) var<storage, read> v: array<Piece>;
@group(0) @binding(3) var<storage, read> scales: array<u32>; // QUANTISED: of K and V, f16, per row
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> sinks: array<u32>; // f32, or the words of a tree
@group(0) @binding(6) var<storage, read_write> out: array<Fours>;
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;
fn mask_word(at: u32) -> u32 { return sinks[at]; }
fn sink_of(head: u32) -> f32 { return bitcast<f32>(sinks[head]); }
#else
@group(0) @binding(1) var<storage, read> k: array<Piece>;
@group(0) @binding(2) var<storage, read> v: array<Piece>;
#if EXTRAS == varlen
@group(0) @binding(3) var<storage, read> table: array<u32>; // where the queries and the keys of each sequence start, and the ends
fn mask_word(at: u32) -> u32 { return 0u; }
#else
@group(0) @binding(3) var<storage, read> bias: array<u32>; // f32, or the words of a tree
fn mask_word(at: u32) -> u32 { return bias[at]; }
#endif
@group(0) @binding(4) var<storage, read> sinks: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<Fours>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
fn sink_of(head: u32) -> f32 { return sinks[head]; }
#endif

struct Sequence {
    index: u32,
    sq: u32,    // its queries
    len: u32,   // and keys
    q_row: u32, // rows of Q before it
    k_row: u32, // rows of K before it, if they are not in blocks
}

fn sequence_at(index: u32) -> Sequence {
#if EXTRAS == varlen
    let q_start = table[2u * index];
    let k_start = table[2u * index + 1u];
    let sq = table[2u * index + 2u] - q_start;
    let len = table[2u * index + 3u] - k_start;
    return Sequence(index, sq, len, q_start * params.heads, k_start * params.kv_heads);
#else
    var len = params.kv_len;
#if EXTRAS == paged
    if params.table != 0u { len = min(table[index * params.table], len); }
#endif
    let q_row = index * params.sq * params.heads;
    return Sequence(index, params.sq, len, q_row, index * params.capacity * params.kv_heads);
#endif
}

// The row of Q, out and lse that a folded row (queries × query heads of one KV head) is.
fn query_row(row: u32, head: u32, sequence: Sequence) -> u32 {
    let ratio = params.heads / params.kv_heads;
    return sequence.q_row + row / ratio * params.heads + head * ratio + row % ratio;
}

// The row of K and V that holds a key. A wild number of a block stands for the last.
fn key_row(key: u32, head: u32, sequence: Sequence) -> u32 {
#if EXTRAS == paged
    let at = key / params.block;
    var number = sequence.index;
    if params.table != 0u { number = min(table[sequence.index * params.table + 1u + at], params.blocks - 1u); }
    return (number * params.kv_heads + head) * params.block + key - at * params.block;
#else
    return sequence.k_row + key * params.kv_heads + head;
#endif
}

#if EXTRAS == paged
#if QUANTISED
// Eight elements of a row from their codes.
fn scaled(codes: Eight, scale: f32) -> Eight {
#if OFFSET
    return Eight((codes.part0 * CODE_UNIT - CODE_OFFSET) * scale, (codes.part1 * CODE_UNIT - CODE_OFFSET) * scale);
#else
    return Eight(codes.part0 * (CODE_UNIT * scale), codes.part1 * (CODE_UNIT * scale));
#endif
}
#endif

fn load_k(row: u32, piece: u32) -> Eight {
    let eight = decode(k[row * (params.d4 / 2u) + piece]);
#if QUANTISED
    return scaled(eight, unpack2x16float(scales[row]).x);
#else
    return eight;
#endif
}

fn load_v(row: u32, piece: u32) -> Eight {
    let eight = decode(v[row * (params.e4 / 2u) + piece]);
#if QUANTISED
    return scaled(eight, unpack2x16float(scales[row]).y);
#else
    return eight;
#endif
}
#endif

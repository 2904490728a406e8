// What every shader of attention_decode is told, and which keys its rows see.
struct Params {
    sq: u32, kv_len: u32, heads: u32, kv_heads: u32, // kv_len: of the longest sequence (PAGED)
    d8: u32, e8: u32,  // pieces of a row of Q and K, and of V
    block_rows: u32,   // rows of the cache from one block (PAGED) or sequence to the next,
    head_rows: u32,    // from one head to the next,
    key_rows: u32,     // from one key to the next
    block: u32,        // PAGED: keys of a block
    table: u32,        // PAGED: words of a sequence in the table: its length, then its blocks; 0 for block = sequence
    tiles: u32, splits: u32, groups: u32, // tiles of R rows
    stats: u32,        // where the maxima and totals start in the workspace
    causal: u32, window: u32, // keys that a query sees, itself included; 0 for all
    kind: u32,         // of Q and out: 0 f32, 1 f16, 2 bf16
    scale: f32,        // with the factor log2 e
    soft_cap: f32,     // EXTRA: likewise; 0 for none
    blocks: u32,       // PAGED: of the cache
    bias: u32, bias_b: u32, bias_h: u32, bias_q: u32, // EXTRA: 1 if there is one, steps by sequence, head, query; or a tree
}
var<immediate> params: Params;

// The keys from x to y − 1 that a folded row sees, of `len`.
fn visible(row: u32, len: u32) -> vec2<u32> {
    let ratio = params.heads / params.kv_heads;
    if row >= params.sq * ratio { return vec2<u32>(); }
    let position = i32(row / ratio + len) - i32(params.sq);
    let last = select(len, u32(clamp(position + 1, 0, i32(len))), params.causal != 0u);
    let first = select(0u, u32(max(position + 1 - i32(params.window), 0)), params.window != 0u);
    return vec2(first, last);
}

// What a workgroup takes: a tile of the folded rows of one KV head, and a split of the keys that they see.
struct Work { first: u32, split: u32, head: u32, sequence: u32, len: u32, begin: u32, end: u32 }

// Of tiles of `tile` rows, and splits that begin at multiples of `align`, as so many keys share a block, and have a multiple of `unit` keys.
fn work_of(group: u32, tile: u32, align: u32, unit: u32) -> Work {
    let rows = params.sq * (params.heads / params.kv_heads);
    // Tiles of rows that read the same keys are neighbours in the grid.
    let first = (group % params.tiles) * tile;
    let split = (group / params.tiles) % params.splits;
    let pair = group / (params.tiles * params.splits);
    let head = pair % params.kv_heads;
    let sequence = pair / params.kv_heads;
    var len = params.kv_len;
#if PAGED
    if params.table != 0u { len = min(table[sequence * params.table], len); }
#endif
    let from_key = visible(first, len).x & ~(align - 1u);
    let to_key = visible(min(first + tile, rows) - 1u, len).y;
    let all = max(to_key, from_key) - from_key;
    let share = ((all + params.splits - 1u) / params.splits + unit - 1u) & ~(unit - 1u);
    let begin = min(from_key + split * share, to_key);
    return Work(first, split, head, sequence, len, begin, min(begin + share, to_key));
}

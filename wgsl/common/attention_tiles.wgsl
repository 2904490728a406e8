// Workgroup memory of attention on cooperative matrices, and how keys and values get there: see
// attention/attention_coop.wgsl for its plan. Needs common/prefill.wgsl with a STORE, ROWS, KEYS, WIDTH, THREADS and
// VECTOR_TILES.

// Rows of the tiles, of weights (P) and of scores (S) are padded against bank conflicts, by whole 16 bytes.
const STRIDE = WIDTH + 8u;
const P_STRIDE = KEYS + 8u;
const S_STRIDE = KEYS + 8u;
// Pieces of eight elements of a row of a tile, and the rows that threads fetch at once.
const PIECES = WIDTH / 8u;
const FETCHED = THREADS / PIECES;
// Whether they fetch whole tiles, without rows to spare.
const EVEN = KEYS % FETCHED == 0u && THREADS % PIECES == 0u;

// Metal's loads want scalar arrays; elsewhere vectors make accesses wide.
#if VECTOR_TILES
var<workgroup> keys: array<vec4<f16>, KEYS * STRIDE / 4u>;
var<workgroup> values: array<vec4<f16>, KEYS * STRIDE / 4u>;
var<workgroup> weights: array<vec4<f16>, ROWS * P_STRIDE / 4u>;
var<workgroup> scores: array<vec4<f32>, ROWS * S_STRIDE / 4u>;
const UNIT = 4u;
fn put_keys(at: u32, x: vec4<f16>) { keys[at / 4u] = x; }
fn put_values(at: u32, x: vec4<f16>) { values[at / 4u] = x; }
fn put_weights(at: u32, x: vec4<f16>) { weights[at / 4u] = x; }
fn put_scores(at: u32, x: vec4<f32>) { scores[at / 4u] = x; }
fn get_scores(at: u32) -> vec4<f32> { return scores[at / 4u]; }
#else
var<workgroup> keys: array<f16, KEYS * STRIDE>;
var<workgroup> values: array<f16, KEYS * STRIDE>;
var<workgroup> weights: array<f16, ROWS * P_STRIDE>;
var<workgroup> scores: array<f32, ROWS * S_STRIDE>;
const UNIT = 1u;
fn put_keys(at: u32, x: vec4<f16>) {
#for e 4
    keys[at + {e}u] = x[{e}];
#endfor
}
fn put_values(at: u32, x: vec4<f16>) {
#for e 4
    values[at + {e}u] = x[{e}];
#endfor
}
fn put_weights(at: u32, x: vec4<f16>) {
#for e 4
    weights[at + {e}u] = x[{e}];
#endfor
}
fn put_scores(at: u32, x: vec4<f32>) {
#for e 4
    scores[at + {e}u] = x[{e}];
#endfor
}
fn get_scores(at: u32) -> vec4<f32> {
    return vec4(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
}
#endif
#if EXTRAS == paged
var<workgroup> rows_of: array<u32, 2u * KEYS>; // of K and V, for the keys of this step and the next
#endif
#if QUANTISED
var<workgroup> key_scales: array<f32, KEYS>;
var<workgroup> value_scales: array<f32, KEYS>;
#endif

// Where the piece of a step's row is in K or V; past the last key it is that key's.
fn piece_at(key0: u32, row: u32, last: u32, start: u32, step: u32) -> u32 {
#if EXTRAS == paged
    return start + rows_of[key0 % (2u * KEYS) + min(row, KEYS - 1u)] * step;
#else
    return start + min(key0 + row, last) * step;
#endif
}

// Pieces go into the tiles from how they are stored; compilers see that halves stay halves. Codes of keys are halves too:
// their scores get the scale.
fn stage_key(row: u32, piece: u32, x: Piece) {
#if QUANTISED
    let eight = scaled(decode(x), 1.0);
#else
    let eight = decode(x);
#endif
    let at = row * STRIDE + piece * 8u;
    if EVEN || row < KEYS {
        put_keys(at, vec4<f16>(eight.part0));
        put_keys(at + 4u, vec4<f16>(eight.part1));
    }
}

fn stage_value(row: u32, piece: u32, x: Piece, scale: f32) {
#if QUANTISED
    let eight = scaled(decode(x), scale);
#else
    let eight = decode(x);
#endif
    let at = row * STRIDE + piece * 8u;
    if EVEN || row < KEYS {
        put_values(at, vec4<f16>(eight.part0));
        put_values(at + 4u, vec4<f16>(eight.part1));
    }
}

#if EXTRAS == paged
// The row of K and V at a place: a block of the sequence and a row in it. A wild number of a block stands for the last. The
// load is under no condition, which would keep it, and those beside it, from being moved ahead.
fn row_in_block(place: vec2<u32>, head: u32, sequence: u32) -> u32 {
    let listed = params.table != 0u;
    let word = table[select(0u, sequence * params.table + 1u + place.x, listed)];
    let number = select(sequence, min(word, params.blocks - 1u), listed);
    return (number * params.kv_heads + head) * params.block + place.y;
}

// The place `step` further, without a division.
fn next_place(place: vec2<u32>, step: vec2<u32>) -> vec2<u32> {
    let next = place + step;
    return select(next, next + vec2(1u, 0u) - vec2(0u, params.block), next.y >= params.block);
}
#endif

// A result of attention_decode. Needs its parameters and bindings, and kinds.wgsl.
// Where the row of a tile is in out, in rows; `row` is among those of a KV head, whose first query is at `at_0`.
fn row_at(row: u32, at_0: u32) -> u32 {
    let ratio = params.heads / params.kv_heads;
    return at_0 + row / ratio * params.heads + row % ratio;
}
// Two columns of it.
fn finish(at: u32, column: u32, sum: vec2<f32>, total: f32) {
    let columns = params.e8 * 8u;
    let value = select(vec2<f32>(), sum / total, total > 0.0);
    if params.kind != 0u {
        out[(at * columns + column) / 2u] = word_of(value);
    } else {
        out[at * columns + column] = bitcast<u32>(value.x);
        out[at * columns + column + 1u] = bitcast<u32>(value.y);
    }
}

// What attention_decode writes of a row. Needs its parameters and bindings, and kinds.wgsl.
// Two columns of a row; the first two also bring its maximum and total.
fn store(row: u32, column: u32, split: u32, at_0: u32, sum: vec2<f32>, top: f32, total: f32) {
    let ratio = params.heads / params.kv_heads;
    if row >= params.sq * ratio { return; }
    let at = at_0 + row / ratio * params.heads + row % ratio;
    let columns = params.e8 * 8u;
    if params.splits == 1u {
        let value = select(vec2<f32>(), sum / total, total > 0.0);
        if params.kind != 0u {
            out[(at * columns + column) / 2u] = word_of(value);
        } else {
            out[at * columns + column] = bitcast<u32>(value.x);
            out[at * columns + column + 1u] = bitcast<u32>(value.y);
        }
    } else {
        let part = at * params.splits + split;
        workspace[part * columns + column] = sum.x;
        workspace[part * columns + column + 1u] = sum.y;
        if column == 0u {
            workspace[params.stats + 2u * part] = top;
            workspace[params.stats + 2u * part + 1u] = total;
        }
    }
}

// What attention_decode writes of a row: the result or, if the keys are split, a part of it for attention_merge.
//!include "common/decode_finish.wgsl"
// Two columns of a row; the first two also bring its maximum and total.
fn store(row: u32, column: u32, split: u32, at_0: u32, sum: vec2<f32>, top: f32, total: f32) {
    if row >= params.sq * (params.heads / params.kv_heads) { return; }
    let at = row_at(row, at_0);
    if params.splits == 1u {
        finish(at, column, sum, total);
        return;
    }
    let columns = params.e8 * 8u;
    let part = at * params.splits + split;
    workspace[part * columns + column] = sum.x;
    workspace[part * columns + column + 1u] = sum.y;
    if column == 0u {
        workspace[params.stats + 2u * part] = top;
        workspace[params.stats + 2u * part + 1u] = total;
    }
}

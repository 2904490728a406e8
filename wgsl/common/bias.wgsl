// Where the bias of a folded row (queries × query heads of one KV head) starts; rows past the last stand for it. Needs
// params with sq, heads, kv_heads and the steps bias_b, bias_h, bias_q.
fn bias_start(row: u32, sequence: u32, head: u32) -> u32 {
    let ratio = params.heads / params.kv_heads;
    let r = min(row, params.sq * ratio - 1u);
    return sequence * params.bias_b + (head * ratio + r % ratio) * params.bias_h + r / ratio * params.bias_q;
}

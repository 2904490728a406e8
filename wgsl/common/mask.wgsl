// Which keys a folded row (queries × query heads of one KV head) of `sq` queries over `len` keys sees under the causal mask and
// the window, and what a soft-cap makes of its scores. Needs params with heads, kv_heads, causal, window, soft_cap.

// The last query meets the last key: how many keys the row sees, were there no window.
fn visible(row: u32, sq: u32, len: u32) -> u32 {
    if params.causal == 0u { return len; }
    let position = row / (params.heads / params.kv_heads);
    return u32(clamp(i32(position + len) + 1 - i32(sq), 0, i32(len)));
}

// The first key that the row sees.
fn first_visible(row: u32, sq: u32, len: u32) -> u32 {
    if params.window == 0u { return 0u; }
    let position = row / (params.heads / params.kv_heads);
    return u32(max(i32(position + len) + 1 - i32(sq) - i32(params.window), 0));
}

// Scores under the cap. Past ±10 tanh is ±1 in f32, and some implementations overflow.
fn bent(score: vec4<f32>) -> vec4<f32> {
    if params.soft_cap <= 0.0 { return score; }
    return params.soft_cap * tanh(clamp(score / params.soft_cap, vec4(-10.0), vec4(10.0)));
}

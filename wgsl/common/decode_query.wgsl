// Pieces of Q for attention_decode, in the dtype params.kind. Needs Eight, kinds.wgsl, and the bindings and parameters.
// Where a piece of Q is for row `row` of the rows of a KV head.
fn query_at(row: u32, piece: u32, sequence: u32, head: u32) -> u32 {
    let ratio = params.heads / params.kv_heads;
    let r = min(row, params.sq * ratio - 1u);
    let at = (sequence * params.sq + r / ratio) * params.heads + head * ratio + r % ratio;
    return at * params.d8 + min(piece, params.d8 - 1u);
}

// The piece, of which f32 fills two words of four and others one; zeros past the row's end.
fn query(lo: vec4<u32>, hi: vec4<u32>, piece: u32) -> Eight {
    var eight = Eight(bitcast<vec4<f32>>(lo), bitcast<vec4<f32>>(hi));
    if params.kind != 0u {
        eight = Eight(vec4(two_of(lo.x), two_of(lo.y)), vec4(two_of(lo.z), two_of(lo.w)));
    }
    let factor = select(0.0, params.scale, piece < params.d8);
    return Eight(eight.part0 * factor, eight.part1 * factor);
}

// bf16 codes, two a word: the upper halves of f32.
const CODE_UNIT = 1.0;
fn bf16_pair(word: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}
fn decode(p: Packet, chunk: u32) -> Eight {
    return Eight(
        vec4<f32>(bf16_pair(p.x), bf16_pair(p.y)),
        vec4<f32>(bf16_pair(p.z), bf16_pair(p.w)),
    );
}

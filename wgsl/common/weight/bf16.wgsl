// bf16 codes, two a word.
//!include "common/bf16.wgsl"
const CODE_UNIT = 1.0;
fn decode(p: Packet, chunk: u32) -> Eight {
    return Eight(
        vec4<f32>(bf16_pair(p.x), bf16_pair(p.y)),
        vec4<f32>(bf16_pair(p.z), bf16_pair(p.w)),
    );
}

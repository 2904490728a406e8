// 3-bit codes through the subnormal halves q·2⁻²⁴.
//!include "common/weight/three_bits.wgsl"
const CODE_UNIT = 16777216.0;
fn decode(p: Packet, chunk: u32) -> Eight {
    let q = three_bits(p, chunk);
    let e04 = unpack2x16float(q & 0x00070007u);
    let e15 = unpack2x16float((q >> 3u) & 0x00070007u);
    let e26 = unpack2x16float((q >> 6u) & 0x00070007u);
    let e37 = unpack2x16float((q >> 9u) & 0x00070007u);
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}

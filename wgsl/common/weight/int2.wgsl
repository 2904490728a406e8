// 2-bit codes through the subnormal halves q·2⁻²⁴; a chunk is half a word.
const CODE_UNIT = 16777216.0;
fn decode(p: Packet, chunk: u32) -> Eight {
    let h = p[chunk / 2u] >> (16u * (chunk % 2u));
    let q = (h & 0xffu) | ((h & 0xff00u) << 8u);
    let e04 = unpack2x16float(q & 0x00030003u);
    let e15 = unpack2x16float((q >> 2u) & 0x00030003u);
    let e26 = unpack2x16float((q >> 4u) & 0x00030003u);
    let e37 = unpack2x16float((q >> 6u) & 0x00030003u);
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}
#if BYTES
const BYTE_ZERO = 2.0;
const BYTE_UNIT = 64.0;
fn bytes(p: Packet, unit: u32) -> vec4<u32> {
    // Their upper two bits are signed, so the zero costs nothing.
    return ((vec4<u32>(p[unit]) << vec4<u32>(6u, 4u, 2u, 0u)) ^ vec4<u32>(0x80808080u)) & vec4<u32>(0xc0c0c0c0u);
}
fn in_order(x: Eight, y: Eight) -> mat4x4<f32> { return transpose(mat4x4<f32>(x.lo, x.hi, y.lo, y.hi)); }
#endif

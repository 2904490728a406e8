// Bytes (int8, int8z) through the subnormal halves q·2⁻²⁴.
const CODE_UNIT = 16777216.0;
#if WEIGHT == int8
// Two's complement to offset binary by flipping the sign bits; the offset 128 is this format's zero point.
const SIGNS = 0x80808080u;
#else
const SIGNS = 0u;
#endif
fn decode(p: Packet, chunk: u32) -> Eight {
    let q0 = p[2u * chunk] ^ SIGNS;
    let q1 = p[2u * chunk + 1u] ^ SIGNS;
    let e02 = unpack2x16float(q0 & 0x00ff00ffu);
    let e13 = unpack2x16float((q0 >> 8u) & 0x00ff00ffu);
    let e46 = unpack2x16float(q1 & 0x00ff00ffu);
    let e57 = unpack2x16float((q1 >> 8u) & 0x00ff00ffu);
    return Eight(vec4<f32>(e02.x, e13.x, e02.y, e13.y), vec4<f32>(e46.x, e57.x, e46.y, e57.y));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let q = vec2<u32>(p[2u * chunk], p[2u * chunk + 1u]) ^ vec2<u32>(SIGNS);
    let even = (q & vec2<u32>(0x00ff00ffu)) | vec2<u32>(0x64006400u);
    let odd = ((q >> vec2<u32>(8u)) & vec2<u32>(0x00ff00ffu)) | vec2<u32>(0x64006400u);
    let base = vec4<f16>(f16(1024.0));
    return Halves(
        scaled_codes(halves_of(vec2<u32>(even.x, odd.x)), base, scale),
        scaled_codes(halves_of(vec2<u32>(even.y, odd.y)), base, scale),
    );
}
#endif
#if BYTES
const BYTE_ZERO = 128.0;
const BYTE_UNIT = 1.0;
fn bytes(p: Packet, unit: u32) -> vec4<u32> { return p ^ vec4<u32>(SIGNS ^ 0x80808080u); }
fn in_order(x: Eight, y: Eight) -> mat4x4<f32> { return mat4x4<f32>(x.lo, x.hi, y.lo, y.hi); }
#endif

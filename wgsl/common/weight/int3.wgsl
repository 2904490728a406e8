// 3-bit codes through the subnormal halves q·2⁻²⁴.
//!include "common/weight/three_bits.wgsl"
const CODE_UNIT = 16777216.0;
fn decode(p: Packet, chunk: u32) -> Eight { return decode_bits(three_bits(p, chunk)); }
fn decode_bits(q: u32) -> Eight {
    let e04 = unpack2x16float(q & 0x00070007u);
    let e15 = unpack2x16float((q >> 3u) & 0x00070007u);
    let e26 = unpack2x16float((q >> 8u) & 0x00070007u);
    let e37 = unpack2x16float((q >> 11u) & 0x00070007u);
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let near = three_bits(p, chunk);
    let far = near >> 8u;
    let first = halves_of(vec2<u32>((near & 0x00070007u) | 0x64006400u, (near & 0x00380038u) | 0x58005800u));
    let second = halves_of(vec2<u32>((far & 0x00070007u) | 0x64006400u, (far & 0x00380038u) | 0x58005800u));
    let base = vec4<f16>(vec2<f16>(f16(1024.0)), vec2<f16>(f16(128.0)));
    return Halves(scaled_codes(first, base, scale), scaled_codes(second, base, scale));
}
#endif
#if BYTES
const BYTE_ZERO = 0.0;
const BYTE_UNIT = 1.0;
fn bytes(p: Packet, unit: u32) -> vec4<u32> {
    const CODES = 0x07070707u;
    // Of one code in four the lower bits are where its neighbours leave room, and the upper one in the second word.
    if unit == 0u {
        let odd = ((p.x >> 6u) & 0x03030303u) | ((p.y >> 4u) & 0x04040404u);
        return vec4<u32>(p.x & CODES, (p.x >> 3u) & CODES, p.y & CODES, odd);
    }
    let even = ((p.z >> 6u) & 0x03030303u) | ((p.y >> 5u) & 0x04040404u);
    return vec4<u32>(even, (p.y >> 3u) & CODES, p.z & CODES, (p.z >> 3u) & CODES);
}
fn in_order(x: Eight, y: Eight) -> mat4x4<f32> {
    return mat4x4<f32>(
        vec4<f32>(x.lo.xz, x.hi.xz), vec4<f32>(x.lo.yw, x.hi.yw),
        vec4<f32>(y.lo.xz, y.hi.xz), vec4<f32>(y.lo.yw, y.hi.yw),
    );
}
#endif

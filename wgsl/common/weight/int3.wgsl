// 3-bit codes through the subnormal halves q·2⁻²⁴.
//!include "common/weight/three_bits.wgsl"
const CODE_UNIT = 16777216.0;
fn decode(p: Packet, chunk: u32) -> Eight { return decode_bits(three_bits(p, chunk)); }
fn decode_bits(q: u32) -> Eight {
    let e04 = unpack2x16float(q & 0x00070007u);
    let e15 = unpack2x16float((q >> 3u) & 0x00070007u);
    let e26 = unpack2x16float((q >> 6u) & 0x00070007u);
    let e37 = unpack2x16float((q >> 9u) & 0x00070007u);
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let q = three_bits(p, chunk);
    let first = halves_of(vec2<u32>((q & 0x00070007u) | 0x64006400u, (q & 0x00380038u) | 0x58005800u));
    let second = halves_of(vec2<u32>((q & 0x01c001c0u) | 0x4c004c00u, ((q >> 9u) & 0x00070007u) | 0x64006400u));
    let base_first = vec4<f16>(vec2<f16>(f16(1024.0)), vec2<f16>(f16(128.0)));
    let base_second = vec4<f16>(vec2<f16>(f16(16.0)), vec2<f16>(f16(1024.0)));
    return Halves(scaled_codes(first, base_first, scale), scaled_codes(second, base_second, scale));
}
#endif
#if BYTES
const BYTE_ZERO = 0.0;
const BYTE_UNIT = 1.0;
fn bytes(p: Packet, unit: u32) -> vec4<u32> {
    let q = vec2<u32>(three_bits(p, 2u * unit), three_bits(p, 2u * unit + 1u));
    let even = vec4<u32>(q.x, q.x >> 6u, q.y, q.y >> 6u) & vec4<u32>(0x00070007u);
    return even | (vec4<u32>(q.x << 5u, q.x >> 1u, q.y << 5u, q.y >> 1u) & vec4<u32>(0x07000700u));
}
fn in_order(x: Eight, y: Eight) -> mat4x4<f32> {
    return mat4x4<f32>(
        vec4<f32>(x.lo.xy, x.hi.xy), vec4<f32>(x.lo.zw, x.hi.zw),
        vec4<f32>(y.lo.xy, y.hi.xy), vec4<f32>(y.lo.zw, y.hi.zw),
    );
}
#endif

// 2-bit codes through the subnormal halves q·2⁻²⁴; a chunk is half a word.
const CODE_UNIT = 16777216.0;
// Codes 0..3 in the low half, 4..7 in the high half.
fn eight_codes(p: Packet, chunk: u32) -> u32 {
    let h = p[chunk / 2u] >> (16u * (chunk % 2u));
    return (h & 0xffu) | ((h & 0xff00u) << 8u);
}
fn decode(p: Packet, chunk: u32) -> Eight {
    let q = eight_codes(p, chunk);
    let e04 = unpack2x16float(q & 0x00030003u);
    let e15 = unpack2x16float((q >> 2u) & 0x00030003u);
    let e26 = unpack2x16float((q >> 4u) & 0x00030003u);
    let e37 = unpack2x16float((q >> 6u) & 0x00030003u);
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let q = eight_codes(p, chunk);
    let first = halves_of(vec2<u32>((q & 0x00030003u) | 0x64006400u, (q & 0x000c000cu) | 0x5c005c00u));
    let second = halves_of(vec2<u32>((q & 0x00300030u) | 0x54005400u, (q & 0x00c000c0u) | 0x4c004c00u));
    let base_first = vec4<f16>(vec2<f16>(f16(1024.0)), vec2<f16>(f16(256.0)));
    let base_second = vec4<f16>(vec2<f16>(f16(64.0)), vec2<f16>(f16(16.0)));
    return Halves(scaled_codes(first, base_first, scale), scaled_codes(second, base_second, scale));
}
#endif
#if BYTES
const BYTE_ZERO = 2.0;
const BYTE_UNIT = 64.0;
fn bytes(p: Packet, unit: u32) -> vec4<u32> {
    // Their upper two bits are signed, so the zero costs nothing.
    return ((vec4<u32>(p[unit]) << vec4<u32>(6u, 4u, 2u, 0u)) ^ vec4<u32>(0x80808080u)) & vec4<u32>(0xc0c0c0c0u);
}
// Four of them where they lie in their bytes: times four to the power of their place. Only the topmost are signed, and so less their zero.
fn bytes_in_place(p: Packet, unit: u32, place: u32) -> u32 {
    let codes = p[unit] & (0x03030303u << (2u * place));
    return select(codes, codes ^ 0x80808080u, place == 3u);
}
fn in_order(x: Eight, y: Eight) -> mat4x4<f32> { return transpose(mat4x4<f32>(x.lo, x.hi, y.lo, y.hi)); }
#endif

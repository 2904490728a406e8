// Nibbles (int4, int4z) through the subnormal halves q·2⁻²⁴.
const CODE_UNIT = 16777216.0;
fn decode(p: Packet, chunk: u32) -> Eight {
    let q = p[chunk];
    let e04 = unpack2x16float(q & 0x000f000fu);
    let e15 = unpack2x16float((q >> 4u) & 0x000f000fu);
    let e26 = unpack2x16float((q >> 8u) & 0x000f000fu);
    let e37 = unpack2x16float((q >> 12u) & 0x000f000fu);
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let near = p[chunk];
    let far = near >> 8u;
    let first = halves_of(vec2<u32>((near & 0x000f000fu) | 0x64006400u, (near & 0x00f000f0u) | 0x54005400u));
    let second = halves_of(vec2<u32>((far & 0x000f000fu) | 0x64006400u, (far & 0x00f000f0u) | 0x54005400u));
    let base = vec4<f16>(vec2<f16>(f16(1024.0)), vec2<f16>(f16(64.0)));
    return Halves(scaled_codes(first, base, scale), scaled_codes(second, base, scale));
}
#endif
#if BYTES
const BYTE_ZERO = 8.0;
const BYTE_UNIT = 16.0;
fn bytes(p: Packet, unit: u32) -> vec4<u32> {
    let q0 = p[2u * unit];
    let q1 = p[2u * unit + 1u];
    // The upper half of a byte is signed, so the zero of int4 costs nothing.
    return (vec4<u32>(q0 << 4u, q0, q1 << 4u, q1) ^ vec4<u32>(0x80808080u)) & vec4<u32>(0xf0f0f0f0u);
}
fn in_order(x: Eight, y: Eight) -> mat4x4<f32> {
    return mat4x4<f32>(
        vec4<f32>(x.lo.xz, x.hi.xz), vec4<f32>(x.lo.yw, x.hi.yw),
        vec4<f32>(y.lo.xz, y.hi.xz), vec4<f32>(y.lo.yw, y.hi.yw),
    );
}
#endif
#if BARE
const HIGH = 16.0;
fn bare_halves(p: Packet, chunk: u32) -> vec4<u32> {
    let near = p[chunk];
    return vec4<u32>(near, near >> 8u, near, near >> 8u) & vec4<u32>(0x000f000fu, 0x000f000fu, 0x00f000f0u, 0x00f000f0u);
}
fn bare_order(x: vec4<u32>) -> vec4<u32> { return fours_apart(x).xzyw; }
#endif

// FP8 E5M2: the upper bytes of halves.
const CODE_UNIT = 1.0;
fn decode(p: Packet, chunk: u32) -> Eight {
    let q0 = p[2u * chunk];
    let q1 = p[2u * chunk + 1u];
    let e02 = unpack2x16float((q0 << 8u) & 0xff00ff00u);
    let e13 = unpack2x16float(q0 & 0xff00ff00u);
    let e46 = unpack2x16float((q1 << 8u) & 0xff00ff00u);
    let e57 = unpack2x16float(q1 & 0xff00ff00u);
    return Eight(vec4<f32>(e02.x, e13.x, e02.y, e13.y), vec4<f32>(e46.x, e57.x, e46.y, e57.y));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let q0 = p[2u * chunk];
    let q1 = p[2u * chunk + 1u];
    let first = halves_of(vec2<u32>((q0 << 8u) & 0xff00ff00u, q0 & 0xff00ff00u));
    let second = halves_of(vec2<u32>((q1 << 8u) & 0xff00ff00u, q1 & 0xff00ff00u));
    return Halves(first * scale, second * scale);
}
#endif

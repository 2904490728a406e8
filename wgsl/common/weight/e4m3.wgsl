// FP8 E4M3 through halves: the exponent's bias is 8 less there, so the half is v·2⁻⁸.
const CODE_UNIT = 256.0;
fn halves_of(q: u32) -> vec2<f32> {
    return unpack2x16float(((q & 0x00800080u) << 8u) | ((q & 0x007f007fu) << 7u));
}
fn decode(p: Packet, chunk: u32) -> Eight {
    let q0 = p[2u * chunk];
    let q1 = p[2u * chunk + 1u];
    let e02 = halves_of(q0);
    let e13 = halves_of(q0 >> 8u);
    let e46 = halves_of(q1);
    let e57 = halves_of(q1 >> 8u);
    return Eight(vec4<f32>(e02.x, e13.x, e02.y, e13.y), vec4<f32>(e46.x, e57.x, e46.y, e57.y));
}

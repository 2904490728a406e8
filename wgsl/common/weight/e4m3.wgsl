// FP8 E4M3 through halves: the exponent's bias is 8 less there, so the half is v·2⁻⁸.
const CODE_UNIT = 256.0;
//!include "common/e4m3_as_halves.wgsl"
fn decode(p: Packet, chunk: u32) -> Eight {
    let q0 = p[2u * chunk];
    let q1 = p[2u * chunk + 1u];
    let e02 = unpack2x16float(signs_and_sizes(q0 << 8u));
    let e13 = unpack2x16float(signs_and_sizes(q0));
    let e46 = unpack2x16float(signs_and_sizes(q1 << 8u));
    let e57 = unpack2x16float(signs_and_sizes(q1));
    return Eight(vec4<f32>(e02.x, e13.x, e02.y, e13.y), vec4<f32>(e46.x, e57.x, e46.y, e57.y));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let q0 = p[2u * chunk];
    let q1 = p[2u * chunk + 1u];
    let first = halves_of(vec2<u32>(signs_and_sizes(q0 << 8u), signs_and_sizes(q0)));
    let second = halves_of(vec2<u32>(signs_and_sizes(q1 << 8u), signs_and_sizes(q1)));
    let unit = vec4<f16>(f16(CODE_UNIT));
    return Halves(first * unit * scale, second * unit * scale);
}
#endif

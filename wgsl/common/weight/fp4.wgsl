// FP4 codes (fp4, mxfp4, nvfp4) through the halves v·2⁻¹⁴.
const CODE_UNIT = 16384.0;
// Integer operations bound a GEMV on NVIDIA, where they run at half the rate of multiply-adds.
//!include "common/fp4_as_halves.wgsl"
fn pairs(q: u32) -> vec4<u32> { return vec4<u32>(first_pair(q), second_pair(q), third_pair(q), fourth_pair(q)); }
fn decode(p: Packet, chunk: u32) -> Eight {
    let q = pairs(p[chunk]);
    let e04 = unpack2x16float(q.x);
    let e15 = unpack2x16float(q.y);
    let e26 = unpack2x16float(q.z);
    let e37 = unpack2x16float(q.w);
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}
#if HALVES
// In units of codes.
fn half_codes(p: Packet, chunk: u32) -> Halves {
    let q = pairs(p[chunk]);
    return Halves(halves_of(q.xy), halves_of(q.zw));
}
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let v = half_codes(p, chunk);
#if SCALE_FORMAT != f16
    return Halves(v.lo * scale.x * scale.y, v.hi * scale.x * scale.y);
#elif SMALL_SCALES
    return Halves(v.lo * scale, v.hi * scale);
#else
    // The unit by itself, which is exact: times a large scale it would overflow.
    let unit = vec4<f16>(f16(CODE_UNIT));
    return Halves(v.lo * unit * scale, v.hi * unit * scale);
#endif
}
#endif
#if BARE
fn bare_halves(p: Packet, chunk: u32) -> vec4<u32> { return pairs(p[chunk]); }
fn bare_order(x: vec4<u32>) -> vec4<u32> { return fours_apart(x); }
#endif

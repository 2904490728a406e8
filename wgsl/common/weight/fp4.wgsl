// FP4 codes (fp4, mxfp4, nvfp4) through the halves v·2⁻¹⁴.
const CODE_UNIT = 16384.0;
// The upload has arranged each word (arrange_fp4 in src/matmul/weight.rs) so that one or two shifts bring a pair's signs to
// bits 31 and 15 and its exponents and mantissas to bits 27..25 and 11..9: integer operations bound a GEMV on NVIDIA,
// where they run at half the rate of multiply-adds.
fn pairs(q: u32) -> vec4<u32> {
    return vec4<u32>(
        q & 0x8e008e00u,
        (q << 3u) & 0x8e008e00u,
        ((q << 6u) & 0x0e000e00u) | ((q << 1u) & 0x80008000u),
        ((q << 9u) & 0x0e000e00u) | ((q << 2u) & 0x80008000u),
    );
}
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

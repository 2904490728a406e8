// Weights as halves, for matrices: a product of two halves rounds once, as it would by way of f32, which takes twice the work.

// The weights of a chunk, finished, in the order of half_order(): which codes lie in one word differs by format, and in which order K is
// summed does not matter.
struct Halves { lo: vec4<f16>, hi: vec4<f16> }
fn halves_of(words: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)));
}
#if PACKET == 16
fn half_order(lo: vec4<f16>, hi: vec4<f16>) -> Halves { return Halves(lo.xzyw, hi.xzyw); }
#else
fn half_order(lo: vec4<f16>, hi: vec4<f16>) -> Halves {
    return Halves(vec4<f16>(lo.x, hi.x, lo.y, hi.y), vec4<f16>(lo.z, hi.z, lo.w, hi.w));
}
#endif

#if SCALE_FORMAT != f16
// Scales of a wider range, times CODE_UNIT: two factors within that of halves.
alias HalfScale = vec2<f16>;
fn half_scale(scale: f32) -> HalfScale {
    return vec2<f16>(vec2<f32>(
        clamp(scale * CODE_UNIT, -32768.0, 32768.0),
        clamp(abs(scale) * (CODE_UNIT / 32768.0), 1.0, 65504.0),
    ));
}
#else
// Integers become halves without a conversion: with the bits of 1024 before it a code q in the lowest bits is the half 1024 + q; two, three,
// four or six bits up, with those of 256, 128, 64 or 16, that plus q. `base` is what stands before each.
#if STORED_ZEROS
alias HalfScale = vec2<f16>; // and the zero
fn scaled_codes(codes: vec4<f16>, base: vec4<f16>, scale: HalfScale) -> vec4<f16> {
    return (codes - base - vec4<f16>(scale.y)) * scale.x;
}
#else
alias HalfScale = f16;
fn scaled_codes(codes: vec4<f16>, base: vec4<f16>, scale: HalfScale) -> vec4<f16> {
    return (codes - (base + vec4<f16>(f16(FIXED_ZERO)))) * scale;
}
#endif
#endif

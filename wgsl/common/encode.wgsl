// The codes nearest to given values, for the formats STORE = fp4|int4|int8|e4m3|e5m2 (INTEGER: the integers among them).
//
// Codes must not depend on how a GPU divides: a quotient only guesses the code, which is then corrected by comparing the
// value with the product of the scale and the midpoint between two codes. A midpoint has 8 bits at most and a scale 11, so
// the product is exact. It also decides as the nearest f32 to the quotient does: where value ≠ scale · midpoint they differ
// by more than half an ulp of the midpoint, as 24 bits are enough to hold the product.
#if STORE == e4m3
const MANTISSA = 3u;
const BIAS = 7u;
const MOST = 126u; // 127 is NaN
const SIGN = 128u;
#elif STORE == e5m2
const MANTISSA = 2u;
const BIAS = 15u;
const MOST = 123u; // 124 is infinity
const SIGN = 128u;
#elif STORE == fp4
const MANTISSA = 1u;
const BIAS = 1u;
const MOST = 7u;
const SIGN = 8u;
#elif STORE == int8
const MOST = 127u;
#else
const MOST = 7u;
#endif

#if INTEGER
fn magnitude(code: u32) -> f32 { return f32(code); }
fn guess(y: f32) -> u32 { return u32(y); }
#else
fn magnitude(code: u32) -> f32 {
    let normal = bitcast<f32>(((code >> MANTISSA) + 127u - BIAS) << 23u | (code << (23u - MANTISSA) & 0x7fffffu));
    let step = bitcast<f32>((128u - BIAS - MANTISSA) << 23u);
    return select(normal, f32(code) * step, code < (1u << MANTISSA));
}
fn guess(y: f32) -> u32 {
    let per_step = bitcast<f32>((126u + BIAS + MANTISSA) << 23u);
    let normal = (bitcast<u32>(y) >> (23u - MANTISSA)) - ((127u - BIAS) << MANTISSA);
    return select(u32(y * per_step), normal, y * per_step >= f32(1u << MANTISSA));
}
#endif

// The code, at most `most`, of size / scale for a size ≥ 0 and a scale > 0; a tie at a midpoint goes to the even code. The
// guess rounds down: at most one below the answer, and above size / scale by less than the quotient's error.
fn nearest(size: f32, scale: f32, per_scale: f32, most: u32) -> u32 {
    let code = min(guess(min(size * per_scale, magnitude(most))), most);
    let middle = 0.5 * (magnitude(code) + magnitude(code + 1u)) * scale;
    return min(code + u32(size > middle || (size == middle && (code & 1u) == 1u)), most);
}

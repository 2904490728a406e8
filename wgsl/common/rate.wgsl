// The power of two that takes `most`, of 0 and more, to between 2^top and twice that. Its inverse is exact too.
fn rate_of(most: f32, top: u32) -> f32 {
    return bitcast<f32>(((254u + top) << 23u) - (bitcast<u32>(max(most, 1e-33)) & 0x7f800000u));
}
fn inverse(rate: f32) -> f32 { return bitcast<f32>(0x7f000000u - bitcast<u32>(rate)); }

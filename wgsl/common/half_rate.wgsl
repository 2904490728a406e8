// Powers of two by which activations that are halves are multiplied, so that their products with codes neither vanish nor overflow as
// halves. Needs rate.wgsl and f16.
fn half_rate(most: f32, top: u32) -> f32 { return min(rate_of(most, top), 536870912.0); }
// Four activations times such a rate. What halves cannot hold of it is a factor of its own, of tiny activations.
fn times_rate(x: vec4<f16>, rate: f32) -> vec4<f16> { return x * f16(min(rate, 32768.0)) * f16(max(rate / 32768.0, 1.0)); }

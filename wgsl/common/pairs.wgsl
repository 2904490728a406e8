// Activations as pairs of halves, in the order of half_codes(), and products with those, two at once.
fn paired(x: vec4<u32>) -> Halves {
    let a = unpack2x16float(x.x);
    let b = unpack2x16float(x.y);
    let c = unpack2x16float(x.z);
    let d = unpack2x16float(x.w);
    return Halves(vec4<f16>(vec4<f32>(a.x, c.x, a.y, c.y)), vec4<f16>(vec4<f32>(b.x, d.x, b.y, d.y)));
}
fn scaled(x: Halves, rate: f16) -> Halves { return Halves(x.lo * rate, x.hi * rate); }
// Of eight products the sums of four: as many as may be rounded to halves on the way. That makes an error of 3·10⁻⁴ of results
// that are rounded to halves, which makes 2·10⁻⁴ by itself.
fn dot_pairs(v: Halves, x: Halves) -> vec2<f32> {
    return vec2<f32>(fma(v.hi.zw, x.hi.zw, fma(v.hi.xy, x.hi.xy, fma(v.lo.zw, x.lo.zw, v.lo.xy * x.lo.xy))));
}

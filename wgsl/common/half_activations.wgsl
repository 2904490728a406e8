// Activations as halves, for matrices.
struct HalfEight { lo: vec4<f16>, hi: vec4<f16> }

// Activations in the order of the weights that put_w() or weights() decodes.
fn half_activations(eight: Eight) -> HalfEight {
    let lo = vec4<f16>(half_range(eight.lo));
    let hi = vec4<f16>(half_range(eight.hi));
#if HALVES
    let x = half_order(lo, hi);
    return HalfEight(x.lo, x.hi);
#else
    return HalfEight(lo, hi);
#endif
}

// bf16 has a wider range than the halves that the matrices take.
fn half_range(x: vec4<f32>) -> vec4<f32> {
#if TA == bf16
    return clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0));
#else
    return x;
#endif
}

// Activation functions by number, as `Activation` in src/matmul/mod.rs lists them.
fn activate_four(x: vec4<f32>, kind: u32) -> vec4<f32> {
    switch kind {
        case 1u: { return x / (1.0 + exp(-x)); }                                    // SiLU
        case 2u: { return 0.5 * x * (1.0 + erf(x * 0.70710678)); }                  // GELU
        case 3u: {                                                                  // GELU, tanh form
            // tanh saturates long before exp overflows; the clamp keeps the argument in range.
            let t = clamp(0.7978845608 * (x + 0.044715 * x * x * x), vec4<f32>(-15.0), vec4<f32>(15.0));
            return 0.5 * x * (1.0 + tanh(t));
        }
        case 4u: { return x / (1.0 + exp(-1.702 * x)); }                            // GELU, sigmoid form
        case 5u: { return max(x, vec4<f32>()); }                                    // ReLU
        default: { return x; }
    }
}
fn activate(x: f32, kind: u32) -> f32 { return activate_four(vec4<f32>(x), kind).x; }

// Error function by Abramowitz & Stegun 7.1.26, |error| ≤ 1.5e-7.
fn erf(x: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - poly * exp(-x * x));
}

// Activation functions by number, as `Activation` in src/matmul/mod.rs lists them.
// The text makes two functions, of one number and of four, since software drivers compile all four where one is wanted.
alias Acted_0 = f32;
alias Acted_1 = vec4<f32>;
#for t 2
fn activate_{t}(x: Acted_{t}, kind: u32) -> Acted_{t} {
    switch kind {
        case 1u: { return x / (1.0 + exp(-x)); }                                    // SiLU
        case 2u: { return 0.5 * x * (1.0 + erf_{t}(x * 0.70710678)); }              // GELU
        case 3u: {                                                                  // GELU, tanh form
            // tanh saturates long before exp overflows; the clamp keeps the argument in range.
            let y = clamp(0.7978845608 * (x + 0.044715 * x * x * x), Acted_{t}(-15.0), Acted_{t}(15.0));
            return 0.5 * x * (1.0 + tanh(y));
        }
        case 4u: { return x / (1.0 + exp(-1.702 * x)); }                            // GELU, sigmoid form
        case 5u: { return max(x, Acted_{t}()); }                                    // ReLU
        default: { return x; }
    }
}

// Error function by Abramowitz & Stegun 7.1.26, |error| ≤ 1.5e-7.
fn erf_{t}(x: Acted_{t}) -> Acted_{t} {
    let y = 1.0 / (1.0 + 0.3275911 * abs(x));
    let poly = y * (0.254829592 + y * (-0.284496736 + y * (1.421413741 + y * (-1.453152027 + y * 1.061405429))));
    return sign(x) * (1.0 - poly * exp(-x * x));
}
#endfor
fn activate(x: f32, kind: u32) -> f32 { return activate_0(x, kind); }
fn activate_four(x: vec4<f32>, kind: u32) -> vec4<f32> { return activate_1(x, kind); }

// Activation functions by number, as `Activation` in src/matmul/mod.rs lists them.

// Error function by Abramowitz & Stegun 7.1.26, |error| ≤ 1.5e-7.
inline float error_function(float x) {
    float t = 1.0f / (1.0f + 0.3275911f * fabs(x));
    float poly = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    return sign(x) * (1.0f - poly * exp(-x * x));
}

inline float activate(float x, uint kind) {
    switch (kind) {
        case 1u: return x / (1.0f + exp(-x));                                   // SiLU
        case 2u: return 0.5f * x * (1.0f + error_function(x * 0.70710678f));    // GELU
        case 3u: {                                                              // GELU, tanh form
            // tanh saturates long before exp overflows; the clamp keeps the argument in range.
            float t = clamp(0.7978845608f * (x + 0.044715f * x * x * x), -15.0f, 15.0f);
            return 0.5f * x * (1.0f + tanh(t));
        }
        case 4u: return x / (1.0f + exp(-1.702f * x));                          // GELU, sigmoid form
        case 5u: return max(x, 0.0f);                                           // ReLU
        default: return x;
    }
}

// The RMS norm of the activations, fused with a product that reads them once. Gains are applied to activations as they
// are loaded, and the sums of squares, gathered on the way, to the finished sums: Σ w·(x·gain) / √(mean x² + eps).
#if SPLIT
@group(0) @binding(8) var<storage, read> gamma: array<A_UNIT>;
#else
@group(0) @binding(7) var<storage, read> gamma: array<A_UNIT>;
#endif

// The gains of columns `c` .. `c + 7` (`c` a multiple of 8); past the row's end some others, whose activations are 0.
#if ROWS == ragged
fn gain(c: u32) -> f32 {
    let at = min(c, params.k - 1u);
#if TA == bf16
    return bf16_of(gamma[at / 2u], at);
#else
    return f32(gamma[at]);
#endif
}
fn gamma_eight(c: u32) -> Eight {
    return Eight(
        vec4<f32>(gain(c), gain(c + 1u), gain(c + 2u), gain(c + 3u)),
        vec4<f32>(gain(c + 4u), gain(c + 5u), gain(c + 6u), gain(c + 7u)),
    );
}
#elif TA != f32
fn gamma_eight(c: u32) -> Eight { return widen(gamma[min(c, params.k - 8u) >> 3u], c); }
#else
fn gamma_eight(c: u32) -> Eight {
    let at = min(c, params.k - 8u) >> 2u;
    return Eight(bitcast<vec4<f32>>(gamma[at]), bitcast<vec4<f32>>(gamma[at + 1u]));
}
#endif

fn times(x: Eight, gains: Eight) -> Eight { return Eight(x.lo * gains.lo, x.hi * gains.hi); }

// The factor of a row with this sum of squares.
fn norm_factor(squares: f32) -> f32 { return inverseSqrt(squares / f32(params.k) + params.eps); }

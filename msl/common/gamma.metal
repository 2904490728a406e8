// The RMS norm of the activations, fused with a product that reads them once: gains are applied to activations as they are
// loaded, and the sums of squares, gathered on the way, to the finished sums: Σ w·(x·gain) / √(mean x² + eps).

// The gains of columns `c` .. `c + 7` (`c` a multiple of 8); past the row's end some others, whose activations are 0.
#if ROWS == ragged
inline Eight gamma_eight(device const AUnit* gamma, constant Params& params, uint c) {
    Eight gains;
    for (uint i = 0; i < 4u; ++i) {
        gains.lo[i] = input_of(gamma[min(c + i, params.k - 1u)]);
        gains.hi[i] = input_of(gamma[min(c + 4u + i, params.k - 1u)]);
    }
    return gains;
}
#elif TA != f32
inline Eight gamma_eight(device const AUnit* gamma, constant Params& params, uint c) {
    return widen(gamma[min(c, params.k - 8u) >> 3u]);
}
#else
inline Eight gamma_eight(device const AUnit* gamma, constant Params& params, uint c) {
    uint at = min(c, params.k - 8u) >> 2u;
    return Eight{gamma[at], gamma[at + 1u]};
}
#endif

inline Eight times(Eight x, Eight gains) { return Eight{x.lo * gains.lo, x.hi * gains.hi}; }

// The factor of a row with this sum of squares.
inline float norm_factor(constant Params& params, float squares) {
    return precise::rsqrt(squares / float(params.k) + params.eps);
}

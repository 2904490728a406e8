// Eight numbers, the unit in which activations and weights are loaded and decoded.
struct Eight {
    float4 lo;
    float4 hi;
};

// A chain of multiply-adds on `sum`.
inline float dot_eight(Eight v, Eight x, float sum) {
    float low = fma(v.lo.w, x.lo.w, fma(v.lo.z, x.lo.z, fma(v.lo.y, x.lo.y, fma(v.lo.x, x.lo.x, sum))));
    return fma(v.hi.w, x.hi.w, fma(v.hi.z, x.hi.z, fma(v.hi.y, x.hi.y, fma(v.hi.x, x.hi.x, low))));
}

inline Eight times(Eight x, float factor) { return Eight{x.lo * factor, x.hi * factor}; }

inline float sum_eight(Eight x) {
    float4 s = x.lo + x.hi;
    return (s.x + s.y) + (s.z + s.w);
}

// Two halves of a word, widened. Halves keep their subnormals, on which the decoders of codes rely.
inline float2 halves(uint word) { return float2(as_type<half2>(word)); }

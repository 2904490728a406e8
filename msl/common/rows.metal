// Eight consecutive elements of a row of the activations `a` [params.m, params.k] at column `c` (a multiple of 8).
//
// ROWS == exact (K a multiple of 64) or padded (of 8) loads 16 bytes at once; ragged loads element by element. Past the
// row's end padded and ragged give zeros; exact gives the last eight, and its callers never use them. Indices are clamped,
// not tested, so that no load stands under a condition.
#if ROWS == ragged
using AUnit = TA;
using RawEight = Eight;
inline float element(device const AUnit* a, constant Params& params, uint row, uint c) {
    float x = input_of(a[row * params.k + min(c, params.k - 1u)]);
    return c < params.k ? x : 0.0f;
}
inline RawEight load_eight(device const AUnit* a, constant Params& params, uint row, uint c) {
    return Eight{
        float4(element(a, params, row, c), element(a, params, row, c + 1u), element(a, params, row, c + 2u),
               element(a, params, row, c + 3u)),
        float4(element(a, params, row, c + 4u), element(a, params, row, c + 5u), element(a, params, row, c + 6u),
               element(a, params, row, c + 7u))};
}
inline Eight widen(RawEight raw) { return raw; }
#elif TA != f32
using AUnit = uint4;
using RawEight = uint4;
inline RawEight load_eight(device const AUnit* a, constant Params& params, uint row, uint c) {
    uint4 raw = a[(row * params.k + min(c, params.k - 8u)) >> 3u];
#if ROWS == padded
    return c < params.k ? raw : uint4(0u);
#else
    return raw;
#endif
}
inline Eight widen(RawEight raw) {
#if TA == bf16
    return Eight{float4(bf16_pair(raw.x), bf16_pair(raw.y)), float4(bf16_pair(raw.z), bf16_pair(raw.w))};
#else
    return Eight{float4(halves(raw.x), halves(raw.y)), float4(halves(raw.z), halves(raw.w))};
#endif
}
#else
using AUnit = float4;
using RawEight = Eight;
inline RawEight load_eight(device const AUnit* a, constant Params& params, uint row, uint c) {
    uint at = (row * params.k + min(c, params.k - 8u)) >> 2u;
#if ROWS == padded
    float keep = c < params.k ? 1.0f : 0.0f;
    return Eight{a[at] * keep, a[at + 1u] * keep};
#else
    return Eight{a[at], a[at + 1u]};
#endif
}
inline Eight widen(RawEight raw) { return raw; }
#endif

// FP4 codes (fp4, mxfp4, nvfp4) through the halves v·2⁻¹⁴. The upload has arranged each word (arrange_fp4 in
// src/matmul/weight.rs) so that one or two shifts bring a pair's signs and magnitudes into place.
constant constexpr float CODE_UNIT = 16384.0f;
inline Eight decode(Packet p, uint chunk) {
    uint q = p[chunk];
    float2 e04 = halves(q & 0x8e008e00u);
    float2 e15 = halves((q << 3u) & 0x8e008e00u);
    float2 e26 = halves(((q << 6u) & 0x0e000e00u) | ((q << 1u) & 0x80008000u));
    float2 e37 = halves(((q << 9u) & 0x0e000e00u) | ((q << 2u) & 0x80008000u));
    return Eight{float4(e04.x, e15.x, e26.x, e37.x), float4(e04.y, e15.y, e26.y, e37.y)};
}

// 3-bit codes through the subnormal halves q·2⁻²⁴.
//!include "common/weight/three_bits.metal"
constant constexpr float CODE_UNIT = 16777216.0f;
inline Eight decode(Packet p, uint chunk) {
    uint q = three_bits(p, chunk);
    float2 e04 = halves(q & 0x00070007u);
    float2 e15 = halves((q >> 3u) & 0x00070007u);
    float2 e26 = halves((q >> 8u) & 0x00070007u);
    float2 e37 = halves((q >> 11u) & 0x00070007u);
    return Eight{float4(e04.x, e15.x, e26.x, e37.x), float4(e04.y, e15.y, e26.y, e37.y)};
}

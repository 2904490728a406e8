// Bytes (int8, int8z) through the subnormal halves q·2⁻²⁴.
constant constexpr float CODE_UNIT = 16777216.0f;
#if WEIGHT == int8
// Two's complement to offset binary by flipping the sign bits; the offset 128 is this format's zero point.
constant constexpr uint SIGNS = 0x80808080u;
#else
constant constexpr uint SIGNS = 0u;
#endif
inline Eight decode(Packet p, uint chunk) {
    uint q0 = p[2u * chunk] ^ SIGNS;
    uint q1 = p[2u * chunk + 1u] ^ SIGNS;
    float2 e02 = halves(q0 & 0x00ff00ffu);
    float2 e13 = halves((q0 >> 8u) & 0x00ff00ffu);
    float2 e46 = halves(q1 & 0x00ff00ffu);
    float2 e57 = halves((q1 >> 8u) & 0x00ff00ffu);
    return Eight{float4(e02.x, e13.x, e02.y, e13.y), float4(e46.x, e57.x, e46.y, e57.y)};
}

// 2-bit codes through the subnormal halves q·2⁻²⁴; a chunk is half a word.
constant constexpr float CODE_UNIT = 16777216.0f;
inline Eight decode(Packet p, uint chunk) {
    uint h = p[chunk / 2u] >> (16u * (chunk % 2u));
    uint q = (h & 0xffu) | ((h & 0xff00u) << 8u);
    float2 e04 = halves(q & 0x00030003u);
    float2 e15 = halves((q >> 2u) & 0x00030003u);
    float2 e26 = halves((q >> 4u) & 0x00030003u);
    float2 e37 = halves((q >> 6u) & 0x00030003u);
    return Eight{float4(e04.x, e15.x, e26.x, e37.x), float4(e04.y, e15.y, e26.y, e37.y)};
}

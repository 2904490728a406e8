// FP8 E5M2: the upper bytes of halves.
constant constexpr float CODE_UNIT = 1.0f;
inline Eight decode(Packet p, uint chunk) {
    uint q0 = p[2u * chunk];
    uint q1 = p[2u * chunk + 1u];
    float2 e02 = halves((q0 << 8u) & 0xff00ff00u);
    float2 e13 = halves(q0 & 0xff00ff00u);
    float2 e46 = halves((q1 << 8u) & 0xff00ff00u);
    float2 e57 = halves(q1 & 0xff00ff00u);
    return Eight{float4(e02.x, e13.x, e02.y, e13.y), float4(e46.x, e57.x, e46.y, e57.y)};
}

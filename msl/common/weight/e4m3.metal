// FP8 E4M3 through halves: the exponent's bias is 8 less there, so the half is v·2⁻⁸.
constant constexpr float CODE_UNIT = 256.0f;
inline float2 e4m3_pair(uint q) { return halves(((q & 0x00800080u) << 8u) | ((q & 0x007f007fu) << 7u)); }
inline Eight decode(Packet p, uint chunk) {
    uint q0 = p[2u * chunk];
    uint q1 = p[2u * chunk + 1u];
    float2 e02 = e4m3_pair(q0);
    float2 e13 = e4m3_pair(q0 >> 8u);
    float2 e46 = e4m3_pair(q1);
    float2 e57 = e4m3_pair(q1 >> 8u);
    return Eight{float4(e02.x, e13.x, e02.y, e13.y), float4(e46.x, e57.x, e46.y, e57.y)};
}

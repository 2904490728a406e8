// bf16 codes, two a word: the upper halves of floats.
constant constexpr float CODE_UNIT = 1.0f;
inline float2 bf16_pair(uint word) { return float2(as_type<float>(word << 16u), as_type<float>(word & 0xffff0000u)); }
inline Eight decode(Packet p, uint) {
    return Eight{float4(bf16_pair(p.x), bf16_pair(p.y)), float4(bf16_pair(p.z), bf16_pair(p.w))};
}

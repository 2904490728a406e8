// bf16 codes, two a word.
//!include "common/bf16.metal"
constant constexpr float CODE_UNIT = 1.0f;
inline Eight decode(Packet p, uint) {
    return Eight{float4(bf16_pair(p.x), bf16_pair(p.y)), float4(bf16_pair(p.z), bf16_pair(p.w))};
}

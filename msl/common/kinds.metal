// Tensors whose dtype is a parameter, kind = 0 f32, 1 f16, 2 bf16, as words. Needs eight.metal.
//!include "common/bf16.metal"

// The two elements of a word of f16 or bf16.
inline float2 two_of(uint word, uint kind) {
    return kind == 1u ? halves(word) : bf16_pair(word);
}

inline uint word_of(float2 two, uint kind) {
    return kind == 1u ? as_type<uint>(half2(two)) : bf16_bits(two.x) | (bf16_bits(two.y) << 16u);
}

// Eight elements from the one numbered 8 · at.
inline Eight load_kind(device const uint4* from, uint at, uint kind) {
    if (kind == 0u) return Eight{as_type<float4>(from[2u * at]), as_type<float4>(from[2u * at + 1u])};
    uint4 raw = from[at];
    return Eight{float4(two_of(raw.x, kind), two_of(raw.y, kind)), float4(two_of(raw.z, kind), two_of(raw.w, kind))};
}

// Stores four elements from the one numbered 4 · at.
inline void store_kind(device uint* to, uint at, float4 value, uint kind) {
    if (kind == 0u) {
        uint4 bits = as_type<uint4>(value);
        for (uint i = 0; i < 4u; ++i) to[4u * at + i] = bits[i];
    } else {
        to[2u * at] = word_of(value.xy, kind);
        to[2u * at + 1u] = word_of(value.zw, kind);
    }
}

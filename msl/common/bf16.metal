// bf16 values, the upper halves of floats, as integers: MSL has a type of them from 3.1 on only. Two come in a word, the first
// in its low half.
inline float bf16_of(ushort bits) { return as_type<float>(uint(bits) << 16u); }
inline float2 bf16_pair(uint word) { return float2(as_type<float>(word << 16u), as_type<float>(word & 0xffff0000u)); }

// The bf16 nearest to x, ties to even, in the low half; NaNs stay NaNs.
inline uint bf16_bits(float x) {
    uint bits = as_type<uint>(x);
    uint rounded = bits + 0x7fffu + ((bits >> 16u) & 1u);
    return ((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded) >> 16u;
}

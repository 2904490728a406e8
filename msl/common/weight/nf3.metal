// The NF3 codebook, read from constant memory, which Apple GPUs cache.
//!include "common/weight/three_bits.metal"
constant constexpr float CODE_UNIT = 1.0f;
constant float CODEBOOK[8] = {
    -1.0f, -0.5350227f, -0.2469314f, 0.0f, 0.18333753f, 0.38199395f, 0.62298566f, 1.0f};
inline float4 codebook(uint4 q) { return float4(CODEBOOK[q.x], CODEBOOK[q.y], CODEBOOK[q.z], CODEBOOK[q.w]); }
inline Eight decode(Packet p, uint chunk) {
    uint4 q = uint4(three_bits(p, chunk));
    return Eight{codebook((q >> uint4(0u, 3u, 8u, 11u)) & 7u), codebook((q >> uint4(16u, 19u, 24u, 27u)) & 7u)};
}

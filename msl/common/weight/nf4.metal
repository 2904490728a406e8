// The NF4 codebook, read from constant memory, which Apple GPUs cache.
constant constexpr float CODE_UNIT = 1.0f;
constant float CODEBOOK[16] = {
    -1.0f, -0.6961928f, -0.52507305f, -0.3949175f, -0.28444138f, -0.18477343f, -0.091050036f, 0.0f,
    0.0795803f, 0.1609302f, 0.2461123f, 0.33791524f, 0.44070983f, 0.562617f, 0.72295684f, 1.0f};
inline float4 codebook(uint4 q) { return float4(CODEBOOK[q.x], CODEBOOK[q.y], CODEBOOK[q.z], CODEBOOK[q.w]); }
inline Eight decode(Packet p, uint chunk) {
    uint4 q = uint4(p[chunk]);
    return Eight{codebook((q >> uint4(0u, 4u, 8u, 12u)) & 15u), codebook((q >> uint4(16u, 20u, 24u, 28u)) & 15u)};
}

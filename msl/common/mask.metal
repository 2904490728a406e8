// Which keys a folded row (queries × query heads of one KV head) sees, and what is done to its scores. Needs Params with sq,
// heads, kv_heads, causal, window, soft_cap and of the bias its kind and steps; see bias.wgsl and tree.wgsl.
constant constexpr float MASKED = -1e30f;
constant constexpr uint BIAS = 1u; // params.bias
constant constexpr uint TREE = 2u;

// The keys from x to y − 1 of `len` that a row of `sq` queries sees, without a look at the tree.
inline uint2 visible(constant Params& params, uint row, uint sq, uint len) {
    int behind = int(row / (params.heads / params.kv_heads) + len) + 1 - int(sq);
    uint end = params.causal != 0u ? uint(clamp(behind, 0, int(len))) : len;
    return uint2(params.window != 0u ? uint(max(behind - int(params.window), 0)) : 0u, end);
}

// Whether a row sees a key that the causal mask lets through. A key stands as many places before its query as there are
// keys of the context and nodes of the branch behind it, up to the query.
inline bool tree_sees(constant Params& params, device const uint* mask, uint row, uint key, uint len, uint sequence) {
    if (params.bias != TREE) return true;
    uint own = min(row / (params.heads / params.kv_heads), params.sq - 1u);
    uint start = sequence * params.bias_b + own * params.bias_q;
    int node = int(min(key, len) + params.sq) - int(len); // below 0 in the context
    if (node >= 0) {
        uint n = min(uint(node), own);
        if (((mask[start + n / 32u] >> (n % 32u)) & 1u) == 0u) return false;
    }
    uint window = params.bias_h;
    if (window == 0u || key + window >= len) return true;
    uint behind = uint(max(node + 1, 0));
    uint distance = uint(max(-1 - node, 0));
    for (uint w = behind / 32u; w <= own / 32u; ++w) {
        uint bits = mask[start + w];
        if (w == behind / 32u) bits &= 0xffffffffu << (behind % 32u);
        if (w == own / 32u) bits &= 0xffffffffu >> (31u - own % 32u);
        distance += popcount(bits);
    }
    return distance < window;
}

// Where the bias of a row starts; rows past the last stand for it.
inline uint bias_start(constant Params& params, uint row, uint sequence, uint head) {
    uint ratio = params.heads / params.kv_heads;
    uint r = min(row, params.sq * ratio - 1u);
    return sequence * params.bias_b + (head * ratio + r % ratio) * params.bias_h + r / ratio * params.bias_q;
}

// A score under the cap. Past ±10 tanh is ±1 in f32.
inline float bent(constant Params& params, float score) {
    if (params.soft_cap <= 0.0f) return score;
    return params.soft_cap * tanh(clamp(score / params.soft_cap, -10.0f, 10.0f));
}

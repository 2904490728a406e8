// The mask of a tree of drafts over the last params.sq keys, whose order the queries have too: a row of bits for each
// query. Needs params with sq, heads, kv_heads, and of the bias its kind, its steps bias_b and bias_q, and in bias_h the
// window; and mask_word(), which reads a word.
const TREE = 2u; // params.bias

// Whether a folded row sees a key of `len` that the causal mask lets through. A key stands as many places before its
// query as there are keys of the context and nodes of the branch behind it, up to the query.
fn tree_sees(row: u32, key: u32, len: u32, sequence: u32) -> bool {
    let own = min(row / (params.heads / params.kv_heads), params.sq - 1u);
    let start = sequence * params.bias_b + own * params.bias_q;
    let node = i32(min(key, len) + params.sq) - i32(len); // below 0 in the context
    if node >= 0 {
        let n = min(u32(node), own);
        if (mask_word(start + n / 32u) >> (n % 32u) & 1u) == 0u { return false; }
    }
    let window = params.bias_h;
    if window == 0u || key + window >= len { return true; }
    let behind = u32(max(node + 1, 0));
    var distance = u32(max(-1 - node, 0));
    for (var w = behind / 32u; w <= own / 32u; w++) {
        var bits = mask_word(start + w);
        if w == behind / 32u { bits &= 0xffffffffu << (behind % 32u); }
        if w == own / 32u { bits &= 0xffffffffu >> (31u - own % 32u); }
        distance += countOneBits(bits);
    }
    return distance < window;
}

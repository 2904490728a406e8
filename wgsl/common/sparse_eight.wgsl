// Eight columns of an N:M-sparse row, pruned ones as zeros: fetched as kept values and positions, expanded when they are needed.
// Needs weight.wgsl, sparse.wgsl with W_UNIT = INDEX_UNIT = u32, and EIGHT_KEPT, how many of eight are kept: 4 or 2.
struct Fetched {
    values: vec2<u32>,  // words that hold the kept values
    bits: u32,          // their positions, from bit 0 up
}

fn fetch_eight(row: u32, k: u32) -> Fetched {
    // Past the row's end: what its last words hold, for activations that are zero.
    let e = k / 8u * EIGHT_KEPT;
    let value_words = params.packets * 4u;
#if WEIGHT == f16
    let at = row * value_words + min(e / 2u, value_words - EIGHT_KEPT / 2u);
    let values = vec2<u32>(w[at], w[at + EIGHT_KEPT / 4u]);
#else
    let values = vec2<u32>(w[row * value_words + min(e / 8u, value_words - 1u)], 0u);
#endif
    let bit = e * INDEX_BITS;
    let word = min(bit / 32u, params.index_words - 1u);
    let low = indices[row * params.index_words + word];
    let high = indices[row * params.index_words + min(word + 1u, params.index_words - 1u)];
    let bits = (low >> (bit % 32u)) | select(0u, high << ((32u - bit) % 32u), bit % 32u != 0u);
    return Fetched(values, bits);
}

// The kept values of the eight columns, scaled; `k` as for fetch_eight, or less by a multiple of 32.
fn kept_values(from_: Fetched, k: u32, scale: f32) -> vec4<f32> {
#if WEIGHT == f16
    return vec4<f32>(unpack2x16float(from_.values.x), unpack2x16float(from_.values.y));
#else
    let all = kept_eight(Packet(from_.values.x, 0u, 0u, 0u), 0u);
    let first = k / 8u * EIGHT_KEPT % 8u;
    var four = select(all.lo, all.hi, first >= 4u);
    if EIGHT_KEPT == 2u { four = select(four, four.zwzw, first % 4u == 2u); }
    return fma(four, vec4<f32>(scale * CODE_UNIT), vec4<f32>(-FIXED_ZERO * scale));
#endif
}

fn expand_eight(from_: Fetched, k: u32, scale: f32) -> Eight {
    let v = kept_values(from_, k, scale);
    var lo = vec4<f32>();
    var hi = vec4<f32>();
#for j EIGHT_KEPT
    let position_{j} = ((from_.bits >> ({j}u * INDEX_BITS)) & (BLOCK - 1u)) + shift_of({j}u);
    lo = select(lo, vec4<f32>(v[{j}]), vec4<u32>(position_{j}) == vec4<u32>(0u, 1u, 2u, 3u));
    hi = select(hi, vec4<f32>(v[{j}]), vec4<u32>(position_{j}) == vec4<u32>(4u, 5u, 6u, 7u));
#endfor
    return Eight(lo, hi);
}

// The block of the `j`th kept value of eight columns, and one more for second positions of 2:4.
fn shift_of(j: u32) -> u32 {
    return j / KEPT * BLOCK + select(0u, j % 2u, BLOCK == 4u && KEPT == 2u);
}

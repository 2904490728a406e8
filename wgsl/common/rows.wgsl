// Eight consecutive elements of a row of the activations `a` [params.m, params.k] at column `c` (a multiple of 8).
//
// ROWS == exact (K a multiple of 64) or padded (of 8) loads 16 bytes at once and needs no f16 feature, as halves come packed;
// ragged loads element by element. Past the row's end padded and ragged give zeros; exact gives the last eight, and its
// callers never use them. Indices are clamped, not tested: a load under a condition cannot be hoisted.
#if ROWS == ragged
alias RawEight = Eight;
fn element(row: u32, c: u32) -> f32 {
    let inside = c < params.k;
    return select(0.0, f32(a[row * params.k + select(0u, c, inside)]), inside);
}
fn load_eight(row: u32, c: u32) -> RawEight {
    return Eight(
        vec4<f32>(element(row, c), element(row, c + 1u), element(row, c + 2u), element(row, c + 3u)),
        vec4<f32>(element(row, c + 4u), element(row, c + 5u), element(row, c + 6u), element(row, c + 7u)),
    );
}
fn widen(raw: RawEight) -> Eight { return raw; }
#elif TA == f16
alias RawEight = vec4<u32>;
fn load_eight(row: u32, c: u32) -> RawEight {
    let raw = a[(row * params.k + min(c, params.k - 8u)) >> 3u];
#if ROWS == padded
    return select(vec4<u32>(), raw, c < params.k);
#else
    return raw;
#endif
}
fn widen(raw: RawEight) -> Eight {
    return Eight(
        vec4<f32>(unpack2x16float(raw.x), unpack2x16float(raw.y)),
        vec4<f32>(unpack2x16float(raw.z), unpack2x16float(raw.w)),
    );
}
#else
alias RawEight = Eight;
fn load_eight(row: u32, c: u32) -> RawEight {
    let at = (row * params.k + min(c, params.k - 8u)) >> 2u;
#if ROWS == padded
    let keep = f32(c < params.k);
    return Eight(bitcast<vec4<f32>>(a[at]) * keep, bitcast<vec4<f32>>(a[at + 1u]) * keep);
#else
    return Eight(bitcast<vec4<f32>>(a[at]), bitcast<vec4<f32>>(a[at + 1u]));
#endif
}
fn widen(raw: RawEight) -> Eight { return raw; }
#endif

#if ROWS == exact
// The `i`th eight from column `c` on, known to lie in the row: one address serves all of a packet's.
fn load_whole_eight(row: u32, c: u32, i: u32) -> RawEight {
#if TA == f16
    return a[((row * params.k + c) >> 3u) + i];
#else
    let at = ((row * params.k + c) >> 2u) + 2u * i;
    return Eight(bitcast<vec4<f32>>(a[at]), bitcast<vec4<f32>>(a[at + 1u]));
#endif
}
#endif

// Eight consecutive elements of a row of the activations `a` [params.m, params.k] at column `c` (a multiple of 8);
// zero past the row's end. ALIGNED (k a multiple of 8) loads 16 bytes at once and needs no f16 feature, as halves come
// packed; otherwise element by element. The index is clamped rather than tested: a load under a condition cannot be
// hoisted above the products of the step before.
#if ALIGNED
#if TA == f16
alias RawEight = vec4<u32>;
fn load_eight(row: u32, c: u32) -> RawEight {
    let inside = c < params.k;
    return select(vec4<u32>(), a[(row * params.k + select(0u, c, inside)) >> 3u], inside);
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
    let inside = c < params.k;
    let at = (row * params.k + select(0u, c, inside)) >> 2u;
    let keep = f32(inside);
    return Eight(bitcast<vec4<f32>>(a[at]) * keep, bitcast<vec4<f32>>(a[at + 1u]) * keep);
}
fn widen(raw: RawEight) -> Eight { return raw; }
#endif
#else
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
#endif

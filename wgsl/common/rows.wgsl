// Eight consecutive elements of a row of the activations `a` [params.m, params.k] at column `c` (a multiple of 8).
//
// ROWS == exact (K a multiple of 64) or padded (of 8) loads 16 bytes at once and needs no f16 feature, as halves and bf16 come packed;
// ragged loads element by element. Past the row's end padded and ragged give zeros, padded in widen(): what is done to a value
// right after its load would wait for it. exact gives the last eight, and its callers never use them. Indices are clamped, not
// tested: a load under a condition cannot be hoisted.
#if ROWS == ragged
alias RawEight = Eight;
fn element(row: u32, c: u32) -> f32 {
    let inside = c < params.k;
    let at = row * params.k + select(0u, c, inside);
#if TA == bf16
    return select(0.0, bf16_of(a[at / 2u], at), inside);
#else
    return select(0.0, f32(a[at]), inside);
#endif
}
fn load_eight(row: u32, c: u32) -> RawEight {
    return Eight(
        vec4<f32>(element(row, c), element(row, c + 1u), element(row, c + 2u), element(row, c + 3u)),
        vec4<f32>(element(row, c + 4u), element(row, c + 5u), element(row, c + 6u), element(row, c + 7u)),
    );
}
fn widen(raw: RawEight, c: u32) -> Eight { return raw; }
#elif TA != f32
alias RawEight = vec4<u32>;
fn load_eight(row: u32, c: u32) -> RawEight { return a[(row * params.k + min(c, params.k - 8u)) >> 3u]; }
// What lies past the row's end as zeros.
fn kept(raw: RawEight, c: u32) -> RawEight {
#if ROWS == padded
    return select(vec4<u32>(), raw, c < params.k);
#else
    return raw;
#endif
}
fn widen(raw: RawEight, c: u32) -> Eight {
    let x = kept(raw, c);
#if TA == bf16
    return Eight(vec4<f32>(bf16_pair(x.x), bf16_pair(x.y)), vec4<f32>(bf16_pair(x.z), bf16_pair(x.w)));
#else
    return Eight(
        vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y)),
        vec4<f32>(unpack2x16float(x.z), unpack2x16float(x.w)),
    );
#endif
}
#else
alias RawEight = Eight;
fn load_eight(row: u32, c: u32) -> RawEight {
    let at = (row * params.k + min(c, params.k - 8u)) >> 2u;
    return Eight(bitcast<vec4<f32>>(a[at]), bitcast<vec4<f32>>(a[at + 1u]));
}
fn widen(raw: RawEight, c: u32) -> Eight {
#if ROWS == padded
    let inside = c < params.k;
    return Eight(select(vec4<f32>(), raw.lo, inside), select(vec4<f32>(), raw.hi, inside));
#else
    return raw;
#endif
}
#endif

// The `i`th eight of the packet from column `c` on. Of exact rows it lies in the row, so one address serves all of a packet's.
fn load_nth_eight(row: u32, c: u32, i: u32) -> RawEight {
#if ROWS != exact
    return load_eight(row, c + i * 8u);
#elif TA != f32
    return a[((row * params.k + c) >> 3u) + i];
#else
    let at = ((row * params.k + c) >> 2u) + 2u * i;
    return Eight(bitcast<vec4<f32>>(a[at]), bitcast<vec4<f32>>(a[at + 1u]));
#endif
}

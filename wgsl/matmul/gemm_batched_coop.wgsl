// out[b] = epilogue(a[b] · w[b]), w[b] as [N, K] rows or (KN) [K, N], on cooperative matrices: the walk and tiles of
// matmul/gemm_coop.wgsl, one batch's tiles after the other's. A thread takes eight halves or bf16 of a row at once, by 16 bytes
// (WIDE0 of a, WIDE1 of w) or, where rows do not start on such, as five words that it shifts. In Kn the tile of w keeps the order of
// the rows of N, and its matrices are loaded from it as rows. EXACT: K is a multiple of the step; otherwise what lies past it is
// zeroed when it goes into the tiles, in w too, as the products with an infinity would not vanish.
// Operands 0 and 1 are a and w: KIND0 is the dtype of a.
enable f16;
enable wgpu_cooperative_matrix;
//!include "common/activation.wgsl"
//!include "common/bf16.wgsl"
//!include "common/batched.wgsl"

struct Eight { lo: vec4<f32>, hi: vec4<f32> }
// Of the workgroup.
var<private> batch: u32;

fn fetch0(at: u32) -> UNIT0 { return a[at]; }
fn fetch1(at: u32) -> UNIT1 { return w[at]; }

#for i 2
// Elements c to c + 7, c a multiple of 8, of the row of `width` that starts at `start`; past the row's end whatever.
#if WIDE{i}
alias Raw{i} = vec4<u32>;
fn load{i}(start: u32, c: u32, width: u32) -> Raw{i} { return fetch{i}((start + min(c, width - 8u)) / 8u); }
fn words{i}(raw: Raw{i}) -> vec4<u32> { return raw; }
#else
struct Raw{i} { words: vec4<u32>, last: u32, odd: bool }
fn load{i}(start: u32, c: u32, width: u32) -> Raw{i} {
    let first = (start + c) / 2u;
    let at = min(vec4(first, first + 1u, first + 2u, first + 3u), vec4((start + width - 1u) / 2u));
    let last = min(first + 4u, (start + width - 1u) / 2u);
    return Raw{i}(vec4(fetch{i}(at.x), fetch{i}(at.y), fetch{i}(at.z), fetch{i}(at.w)), fetch{i}(last), start % 2u == 1u);
}
fn words{i}(raw: Raw{i}) -> vec4<u32> {
    let shifted = raw.words >> vec4(16u) | vec4(raw.words.yzw, raw.last) << vec4(16u);
    return select(raw.words, shifted, raw.odd);
}
#endif

// Eight numbers.
fn eight{i}(x: vec4<u32>) -> Eight {
#if KIND{i} == bf16
    return Eight(vec4(bf16_pair(x.x), bf16_pair(x.y)), vec4(bf16_pair(x.z), bf16_pair(x.w)));
#else
    return Eight(
        vec4(unpack2x16float(x.x), unpack2x16float(x.y)),
        vec4(unpack2x16float(x.z), unpack2x16float(x.w)),
    );
#endif
}
#endfor

// With zeros in place of columns of K that there are not: one column for all eight, or each its own.
fn inside_one(words: vec4<u32>, k: u32) -> vec4<u32> { return select(vec4<u32>(), words, k < params.k); }
fn inside_each(x: Eight, k: u32) -> Eight {
    let columns = vec4(k, k + 1u, k + 2u, k + 3u);
    let lo = select(vec4<f32>(), x.lo, columns < vec4(params.k));
    return Eight(lo, select(vec4<f32>(), x.hi, columns + vec4(4u) < vec4(params.k)));
}

fn load_eight(row: u32, k: u32) -> Raw0 { return load0(batch * params.stride_a + row * params.k, k, params.k); }
fn widen(raw: Raw0, k: u32) -> Eight {
#if EXACT
    return eight0(words0(raw));
#elif WIDE0
    return eight0(inside_one(words0(raw), k));
#else
    return inside_each(eight0(words0(raw)), k);
#endif
}

// Finishes and stores the sums of four rows and SUMS columns from `n` on; rows past the end are left out.
fn finish_rows(sums: array<vec4<f32>, SUMS>, rows: vec4<u32>, n: u32) {
    let at = (vec4(batch * params.m) + min(rows, vec4(params.m - 1u))) * params.n + n;
#for s SUMS
    let values_{s} = outputs(sums[{s}], at + vec4({s}u), n + {s}u);
#endfor
#for r 4
#if KIND3 == bf16
    if rows[{r}] < params.m { out[at[{r}] / 2u] = bf16_word(vec2(values_0[{r}], values_1[{r}])); }
#else
    if rows[{r}] < params.m { out[at[{r}]] = UNIT3(values_0[{r}]); }
#endif
#endfor
}

// The same of one column, before they are stored at `at`.
fn outputs(sums: vec4<f32>, at: vec4<u32>, n: u32) -> vec4<f32> {
    var values = sums * params.scale;
    if (params.flags & 1u) != 0u { values += bias_at(batch * params.stride_bias + n); }
    values = activate_four(values, params.activation);
    if (params.flags & 2u) != 0u {
        values += vec4(residual_at(at.x), residual_at(at.y), residual_at(at.z), residual_at(at.w));
    }
    return values;
}

#if KIND3 == bf16
fn bias_at(at: u32) -> f32 { return bf16_of(bias[at / 2u], at); }
fn residual_at(at: u32) -> f32 { return bf16_of(residual[at / 2u], at); }
#else
fn bias_at(at: u32) -> f32 { return f32(bias[at]); }
fn residual_at(at: u32) -> f32 { return f32(residual[at]); }
#endif

//!include "common/coop_product.wgsl"

const PACKET = W_EACH;
// Where eight of w lie in K.
alias Affine = u32;
fn fetch_affine(row: u32, k: u32) -> Affine { return k; }
fn fetch_packet(row: u32, k: u32) -> Raw1 {
#if KN
    return load1(batch * params.stride_w + min(k, params.k - 1u) * params.n, row, params.n);
#else
    return load1(batch * params.stride_w + row * params.k, k, params.k);
#endif
}

fn put_w(at: u32, packet: Raw1, chunk: u32, k: Affine) {
#if EXACT
    let x = eight1(words1(packet));
#elif KN
    let x = eight1(inside_one(words1(packet), k));
#elif WIDE1
    let x = eight1(inside_one(words1(packet), k));
#else
    let x = inside_each(eight1(words1(packet)), k);
#endif
#if KIND1 == bf16
    let range = vec4(65504.0); // of halves
    store_w(at, vec4<f16>(clamp(x.lo, -range, range)), vec4<f16>(clamp(x.hi, -range, range)));
#else
    store_w(at, vec4<f16>(x.lo), vec4<f16>(x.hi));
#endif
}

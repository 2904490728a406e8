// Bindings, parameters and epilogue of the products with N:M-sparse weights; one part of the rows of w per launch. Kept values
// come in packets of 16 bytes, in chunks of eight (BLOCK and KEPT are m and n of the pattern): see docs/formats.md. For 2:4 the
// upload has made the second position of a block one less, so that a pair of positions is a number below 11.
struct Params {
    m: u32,             // rows of a
    n: u32,             // rows of this part of w
    k: u32,             // columns of w, kept or not
    packets: u32,       // packets in a row of w
    index_words: u32,   // words of positions in a row of w
    groups: u32,        // scales in a row
    group_shift: u32,   // log2 of the group, 31 for one group a row
    n_first: u32,       // first output column of this part
    n_all: u32,         // columns of out
    flags: u32,         // 1 bias, 2 add aux
    activation: u32,
}
var<immediate> params: Params;
// K is a multiple of 4, so rows of a start on whole vectors.
@group(0) @binding(0) var<storage, read> a: array<vec4<TA>>;
@group(0) @binding(1) var<storage, read> w: array<W_UNIT>;
@group(0) @binding(2) var<storage, read> indices: array<INDEX_UNIT>;
#if NEEDS_F16
@group(0) @binding(3) var<storage, read> scales: array<f16>;
#else
@group(0) @binding(3) var<storage, read> scales: array<u32>;
#endif
@group(0) @binding(4) var<storage, read> bias: array<TO>;
@group(0) @binding(5) var<storage, read> aux: array<TO>;
@group(0) @binding(6) var<storage, read_write> out: array<TO>;

const CHUNK_COLUMNS = 8u * BLOCK / KEPT;

// Eight kept values in the order of their columns. SPLIT_PAIRS: the upload has put the first codes of four pairs before the second ones.
fn kept_eight(packet: Packet, chunk: u32) -> Eight {
    let v = decode(packet, chunk);
#if SPLIT_PAIRS
    return Eight(vec4<f32>(v.lo.x, v.hi.x, v.lo.y, v.hi.y), vec4<f32>(v.lo.z, v.hi.z, v.lo.w, v.hi.w));
#else
    return v;
#endif
}

// Four activations from column `k` (a multiple of 4); past the row's end the last ones, which `inside` turns into zeros.
fn load_quad(row: u32, k: u32) -> vec4<TA> {
    return a[(row * params.k + min(k, params.k - 4u)) >> 2u];
}

fn inside(x: vec4<TA>, k: u32) -> vec4<f32> {
    return select(vec4<f32>(), vec4<f32>(x), k < params.k);
}

// Where the scale of a row's column `k` is, and the scale; past the end those of its last group.
fn scale_place(row: u32, k: u32) -> u32 {
    return row * params.groups + min(k >> params.group_shift, params.groups - 1u);
}
fn scale_at(row: u32, k: u32) -> f32 {
#if QUANTISED
    let at = scale_place(row, k);
#if NEEDS_F16
    return f32(scales[at]);
#else
    return half_of(scales[at >> 1u], at);
#endif
#else
    return 1.0;
#endif
}

// Finishes and stores the sum for row `m` of a and row `n` of this part of w. The caller has checked both.
fn finish(sum: f32, m: u32, n: u32) {
    let column = params.n_first + n;
    var value = sum;
    if (params.flags & 1u) != 0u { value += f32(bias[column]); }
    value = activate(value, params.activation);
    if (params.flags & 2u) != 0u { value += f32(aux[m * params.n_all + column]); }
    out[m * params.n_all + column] = TO(value);
}

// The same for four rows; those past the end are left out.
fn finish_rows(sums: array<vec4<f32>, 1>, rows: vec4<u32>, n: u32) {
    let column = params.n_first + n;
    let values = outputs(sums[0], rows, column);
#for r 4
    if rows[{r}] < params.m { out[rows[{r}] * params.n_all + column] = TO(values[{r}]); }
#endfor
}

fn outputs(sums: vec4<f32>, rows: vec4<u32>, column: u32) -> vec4<f32> {
    var values = sums;
    if (params.flags & 1u) != 0u { values += f32(bias[column]); }
    values = activate_four(values, params.activation);
    if (params.flags & 2u) != 0u {
        let at = min(rows, vec4<u32>(params.m - 1u)) * params.n_all + column;
        values += vec4<f32>(f32(aux[at.x]), f32(aux[at.y]), f32(aux[at.z]), f32(aux[at.w]));
    }
    return values;
}

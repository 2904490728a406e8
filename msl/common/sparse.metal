// Parameters, loads and epilogue of the products with N:M-sparse weights; one part of the rows of w per launch. Kept values come
// in packets of 16 bytes, in chunks of eight (BLOCK and KEPT are m and n of the pattern): see docs/formats.md. For 2:4 the upload
// has made the second position of a block one less. Needs weight.metal.
struct Params {
    uint m;             // rows of a
    uint n;             // rows of this part of w
    uint k;             // columns of w, kept or not
    uint packets;       // packets in a row of w
    uint index_words;   // words of positions in a row of w
    uint groups;        // scales in a row
    uint group_shift;   // log2 of the group, 31 for one group a row
    uint n_first;       // first output column of this part
    uint n_all;         // columns of out
    uint flags;         // 1 bias, 2 add aux
    uint activation;
};
// K is a multiple of 4, so rows of a start on whole vectors.
using AUnit = vec<TA, 4>;

// Eight kept values in the order of their columns. SPLIT_PAIRS: the upload has put the first codes of four pairs before the second ones.
inline Eight kept_eight(uint4 packet, uint chunk) {
    Eight v = decode(packet, chunk);
#if SPLIT_PAIRS
    return Eight{float4(v.lo.x, v.hi.x, v.lo.y, v.hi.y), float4(v.lo.z, v.hi.z, v.lo.w, v.hi.w)};
#else
    return v;
#endif
}

// Four activations from column `k` (a multiple of 4); past the row's end zeros.
inline float4 load_quad(device const AUnit* a, constant Params& params, uint row, uint k) {
    float4 x = float4(a[(row * params.k + min(k, params.k - 4u)) >> 2u]);
    return k < params.k ? x : float4(0.0f);
}

// The scale of a row's column `k`; past the end that of its last group.
inline float scale_at(device const half* scales, constant Params& params, uint row, uint k) {
#if QUANTISED
    return float(scales[row * params.groups + min(k >> params.group_shift, params.groups - 1u)]);
#else
    return 1.0f;
#endif
}

// The positions in a row from the `bit`th bit on: at least 24 bits, or those that there are.
inline uint positions(device const uint* indices, constant Params& params, uint row, uint bit) {
    uint word = min(bit / 32u, params.index_words - 1u), shift = bit % 32u;
    uint low = indices[row * params.index_words + word];
    uint high = indices[row * params.index_words + min(word + 1u, params.index_words - 1u)];
    return shift == 0u ? low : (low >> shift) | (high << (32u - shift));
}

// The column of the `j`th kept value of some blocks, counted from the first block's, given their positions.
inline uint column_of(uint bits, uint j) {
    uint second = BLOCK == 4u && KEPT == 2u ? j % 2u : 0u;
    return ((bits >> (j * INDEX_BITS)) & (BLOCK - 1u)) + j / KEPT * BLOCK + second;
}

struct Output {
    device const TO* bias;
    device const TO* aux;
    device TO* out;
};

// Finishes and stores the sum for row `m` of a and row `n` of this part of w. The caller has checked both.
inline void finish(Output to, constant Params& params, float sum, uint m, uint n) {
    uint column = params.n_first + n;
    float value = sum;
    if ((params.flags & 1u) != 0u) value += float(to.bias[column]);
    value = activate(value, params.activation);
    if ((params.flags & 2u) != 0u) value += float(to.aux[m * params.n_all + column]);
    to.out[m * params.n_all + column] = TO(value);
}

// Parameters and epilogue that gemm and gemv share: out = epilogue(a · wᵀ), one part of the rows of w per launch. SPLIT writes
// three outputs of their own width.
struct Params {
    uint m;             // rows of a
    uint n;             // rows of this part of w
    uint k;
    uint packets;       // packets in a row of w
    uint groups;        // scales in a row of w
    uint group_shift;   // log2 of the group, 31 for one group a row
    uint n_first;       // first output column of this part
    uint n_all;         // columns of out, of all outputs together
    uint out_row;       // first row of out that is written
    uint flags;         // 1 bias, 2 add aux
    uint activation;
    float scale;        // of the sums
    float eps;          // of the RMS norm
    uint q_end;         // SPLIT: columns before the second output
    uint k_end;         // and before the third
    uint kv_row;        // their first row that is written
};
//!include "common/packed.metal"
//!include "common/bf16.metal"

// What lies in memory as numbers, and back.
#if TA == bf16
inline float input_of(TA x) { return bf16_of(x); }
#else
inline float input_of(TA x) { return float(x); }
#endif
#if TO == bf16
inline TO stored(float x) { return TO(bf16_bits(x)); }
inline float output_of(TO x) { return bf16_of(x); }
#else
inline TO stored(float x) { return TO(x); }
inline float output_of(TO x) { return float(x); }
#endif

struct Output {
    device const TO* bias;
    device TO* out;
#if SPLIT
    device TO* out_k;
    device TO* out_v;
#else
    device const TO* aux;
#endif
};

#if PAIR
// Rows of w alternate between gate and up: two neighbouring sums make one output, act(gate) · up.
inline void finish_pair(Output to, constant Params& params, float gate, float up, uint m, uint n) {
    uint at = (params.out_row + m) * params.n_all + (params.n_first + n) / 2u;
    to.out[at] = stored(activate(gate, params.activation) * up);
}
#else
// Finishes and stores the sum for row `m` of a and row `n` of this part of w. The caller has checked both.
inline void finish(Output to, constant Params& params, float sum, uint m, uint n) {
    uint column = params.n_first + n;
    float value = sum * params.scale;
    if ((params.flags & 1u) != 0u) value += output_of(to.bias[column]);
    value = activate(value, params.activation);
#if SPLIT
    if (column < params.q_end) {
        to.out[(params.out_row + m) * params.q_end + column] = stored(value);
    } else if (column < params.k_end) {
        uint width = params.k_end - params.q_end;
        to.out_k[(params.kv_row + m) * width + column - params.q_end] = stored(value);
    } else {
        uint width = params.n_all - params.k_end;
        to.out_v[(params.kv_row + m) * width + column - params.k_end] = stored(value);
    }
#else
    if ((params.flags & 2u) != 0u) value += output_of(to.aux[m * params.n_all + column]);
    to.out[(params.out_row + m) * params.n_all + column] = stored(value);
#endif
}
#endif

// What the Msl tier relies on beyond a compiler, tried at start-up: the slot of every argument, immediates, threadgroup arrays,
// the width of SIMD-groups, and products of simdgroup matrices. SIMD-group 0 multiplies halves; SIMD-group 1 floats, and floats by
// halves, as attention does: the sum of both is twice the product.
struct Params {
    float scale;
    uint bias;
};

[[max_total_threads_per_threadgroup(64)]]
kernel void canary(
    constant Params& params [[buffer(0)]],
    device const half* a [[buffer(1)]],
    device const half* b [[buffer(2)]],
    device float* product [[buffer(3)]],
    device uint* first [[buffer(4)]],
    device uint* second [[buffer(5)]],
    uint index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float wide[128];
    threadgroup float result[128];
    wide[index] = float(a[index]);
    wide[64u + index] = float(b[index]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_float8x8 sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    if (simdgroup == 0u) {
        simdgroup_half8x8 left, right;
        simdgroup_load(left, a, 8);
        simdgroup_load(right, b, 8, ulong2(0, 0), true);
        simdgroup_multiply_accumulate(sum, left, right, sum);
    } else {
        simdgroup_float8x8 left, right;
        simdgroup_load(left, wide, 8);
        simdgroup_load(right, wide + 64, 8, ulong2(0, 0), true);
        simdgroup_multiply_accumulate(sum, left, right, sum);
        simdgroup_half8x8 half_right;
        simdgroup_load(half_right, b, 8, ulong2(0, 0), true);
        simdgroup_multiply_accumulate(sum, left, half_right, sum);
    }
    simdgroup_store(sum, result + simdgroup * 64u, 8);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    product[index] = result[index] * params.scale;
    product[64u + index] = 0.5f * result[64u + index] * params.scale;
    uint lanes = simd_sum(1u);
    if (index == 0u) {
        first[0] = 4u + params.bias;
        second[0] = 5u + params.bias;
    }
    if (lane == 31u) second[1u + simdgroup] = lanes;
}

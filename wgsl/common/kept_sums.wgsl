// Sums of workgroups that stay (matmul/gemv_fragments.wgsl): each takes every so many-th STEP rows of w, and its
// subgroups, which have a part of the columns each, leave their sums here until the end. Needs SUBGROUPS, STEP, SUM_UNIT and linear.wgsl.
const SUMS_ROOM = MOST_TILES * SIDE;
var<workgroup> partial: array<f32, SUBGROUPS * SUMS_ROOM>;

// Behind a barrier: brings them together, and finishes them.
fn finish_kept(thread: u32, index: u32, groups: u32, own_steps: u32) {
    for (var v = thread * SUMS; v < own_steps * STEP; v += THREADS * SUMS) {
        let n = (index + v / STEP * groups) * STEP + v % STEP;
        if n >= params.n { continue; }
#if SUMS == 4
        finish(vec4<f32>(sum_of(v), sum_of(v + 1u), sum_of(v + 2u), sum_of(v + 3u)), 0u, n);
#elif SUMS == 2
        finish(vec2<f32>(sum_of(v), sum_of(v + 1u)), 0u, n);
#else
        finish(sum_of(v), 0u, n);
#endif
    }
}

// The sum over the workgroup of one value.
fn sum_of(v: u32) -> f32 {
    var sum = 0.0;
    for (var s = 0u; s < SUBGROUPS; s++) { sum += partial[s * SUMS_ROOM + v]; }
    return sum * SUM_UNIT;
}

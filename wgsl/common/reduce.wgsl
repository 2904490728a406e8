// Sums and maxima over a workgroup of THREADS threads, given to all of them. Every thread must call, in uniform flow.
// SUBGROUP picks subgroup operations of any width: each subgroup leaves one value in workgroup memory, and every
// thread then folds those few; otherwise a tree in workgroup memory.
var<workgroup> reduce_scratch: array<f32, THREADS>;

#if SUBGROUP
fn workgroup_sum(value: f32, lane: Lane) -> f32 {
    let part = subgroupAdd(value);
    workgroupBarrier(); // the scratch may still be read by an earlier reduction
    if lane.subgroup_lane == 0u { reduce_scratch[lane.subgroup] = part; }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < lane.subgroups; i++) { sum += reduce_scratch[i]; }
    return sum;
}

fn workgroup_max(value: f32, lane: Lane) -> f32 {
    let part = subgroupMax(value);
    workgroupBarrier();
    if lane.subgroup_lane == 0u { reduce_scratch[lane.subgroup] = part; }
    workgroupBarrier();
    var most = reduce_scratch[0];
    for (var i = 1u; i < lane.subgroups; i++) { most = max(most, reduce_scratch[i]); }
    return most;
}
#else
fn workgroup_sum(value: f32, lane: Lane) -> f32 {
    workgroupBarrier();
    reduce_scratch[lane.thread] = value;
    for (var step = THREADS / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane.thread < step { reduce_scratch[lane.thread] += reduce_scratch[lane.thread + step]; }
    }
    workgroupBarrier();
    return reduce_scratch[0];
}

fn workgroup_max(value: f32, lane: Lane) -> f32 {
    workgroupBarrier();
    reduce_scratch[lane.thread] = value;
    for (var step = THREADS / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane.thread < step {
            reduce_scratch[lane.thread] = max(reduce_scratch[lane.thread], reduce_scratch[lane.thread + step]);
        }
    }
    workgroupBarrier();
    return reduce_scratch[0];
}
#endif

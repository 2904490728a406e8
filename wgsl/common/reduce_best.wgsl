// The greatest key over a workgroup of THREADS threads and the lowest index that has it, as vec2(key, index), given to
// all threads. Every thread must call, in uniform flow. Tiers as in reduce.wgsl.
var<workgroup> best_scratch: array<vec2<u32>, THREADS>;

fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}

fn workgroup_best(mine: vec2<u32>, lane: Lane) -> vec2<u32> {
#if SUBGROUP
    let key = subgroupMax(mine.x);
    let index = subgroupMin(select(0xffffffffu, mine.y, mine.x == key));
    workgroupBarrier(); // the scratch may still be read by an earlier reduction
    if lane.subgroup_lane == 0u { best_scratch[lane.subgroup] = vec2(key, index); }
    workgroupBarrier();
    var best = best_scratch[0];
    for (var i = 1u; i < lane.subgroups; i++) { best = better(best, best_scratch[i]); }
    return best;
#else
    workgroupBarrier();
    best_scratch[lane.thread] = mine;
    for (var step = THREADS / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane.thread < step {
            best_scratch[lane.thread] = better(best_scratch[lane.thread], best_scratch[lane.thread + step]);
        }
    }
    workgroupBarrier();
    return best_scratch[0];
#endif
}

// Sums of 64-bit integers over a workgroup of THREADS = SIDE² threads, as vec2(low, high): exact, so that they do not
// depend on the order of threads; and the search for the thread at which a running sum passes a goal.
//!include "common/wide.wgsl"
const NONE = 0xffffffffu;
const SIDE = 16u;
var<workgroup> sums: array<vec2<u32>, THREADS>;
var<workgroup> picked: u32;
var<workgroup> picked_before: vec2<u32>;
var<workgroup> picked_value: vec2<u32>;

fn minus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// value · fraction / 2^32, rounded down, and whether anything was cut off.
struct Part { whole: vec2<u32>, more: bool }
fn part(value: vec2<u32>, fraction: u32) -> Part {
    let below = wide_mul(value.x, fraction);
    return Part(wide_add(wide_mul(value.y, fraction), vec2(below.y, 0u)), below.x != 0u);
}

// The sum of the values of this thread and those before it, and of all. Every thread must call.
struct Scan { upto: vec2<u32>, total: vec2<u32> }
fn scan(value: vec2<u32>, thread: u32) -> Scan {
    workgroupBarrier();
    sums[thread] = value;
    workgroupBarrier();
    if thread < SIDE {
        var sum = vec2(0u);
        for (var i = 0u; i < SIDE; i++) {
            sum = wide_add(sum, sums[thread * SIDE + i]);
            sums[thread * SIDE + i] = sum;
        }
    }
    workgroupBarrier();
    var before = vec2(0u);
    var total = vec2(0u);
    for (var i = 0u; i < SIDE; i++) {
        if i == thread / SIDE { before = total; }
        total = wide_add(total, sums[i * SIDE + SIDE - 1u]);
    }
    return Scan(wide_add(before, sums[thread]), total);
}

// The thread in whose value the running sum passes `goal`, or NONE; and its value and what came before it.
struct Pick { thread: u32, before: vec2<u32>, value: vec2<u32> }
fn pick(value: vec2<u32>, upto: vec2<u32>, goal: vec2<u32>, thread: u32) -> Pick {
    if thread == 0u {
        picked = NONE;
        picked_before = vec2(0u);
        picked_value = vec2(0u);
    }
    workgroupBarrier();
    let before = minus(upto, value);
    if !less(goal, before) && less(goal, upto) {
        picked = thread;
        picked_before = before;
        picked_value = value;
    }
    let who = workgroupUniformLoad(&picked);
    return Pick(who, picked_before, picked_value);
}

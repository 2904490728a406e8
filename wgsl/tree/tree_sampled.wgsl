// Walks down a tree of drafts from node 0 by speculative sampling: a child is accepted with probability min(1, p / q) of
// what is left of the model's distribution p of its parent's next token; if it is not, q is taken out of p. Where no child
// is accepted, the next token is drawn from what is left. One workgroup a tree, its threads over the tokens.
// After rejections that summed up to `taken`, max(p - taken·q, 0) is left: nothing but that number need be kept. Where
// drafts are certain (q = 1) the rejected tokens are what is gone. Probabilities are 64-bit integers in units of 2^-45 and
// their sums exact, so that results do not depend on the order of threads; `taken` is in units of 2^-20.
//!include "common/grid.wgsl"
//!include "common/philox.wgsl"
//!include "common/wide_scan.wgsl"

struct Params { trees: u32, nodes: u32, cols: u32, seed_low: u32, seed_high: u32, step: u32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> parents: array<u32>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> model: array<f32>;
@group(0) @binding(3) var<storage, read> drafts: array<f32>;
@group(0) @binding(4) var<storage, read_write> path: array<u32>;
@group(0) @binding(5) var<storage, read_write> accepted: array<u32>;
@group(0) @binding(6) var<storage, read_write> next: array<u32>;

#if !DRAFTS
var<workgroup> rejected: array<u32, MAX_NODES>;
#endif

// What is left of the row of probabilities from `row` on.
struct Left {
    row: u32,
    taken: f32,
    rejected: u32, // how many tokens were
}

fn units(p: f32) -> vec2<u32> {
    let weight = select(0.0, min(p, 1.0), p > 0.0) * 8192.0;
    let whole = floor(weight);
    return vec2(u32((weight - whole) * 4294967296.0), u32(whole));
}

fn left_of(left: Left, token: u32) -> vec2<u32> {
    let p = units(model[left.row + token]);
#if DRAFTS
    let gone = units(left.taken * drafts[left.row + token]);
    return select(vec2(0u), minus(p, gone), less(gone, p));
#else
    for (var i = 0u; i < left.rejected; i++) {
        if rejected[i] == token { return vec2(0u); }
    }
    return p;
#endif
}

fn total(left: Left, thread: u32) -> vec2<u32> {
    var sum = vec2(0u);
    for (var token = thread; token < params.cols; token += THREADS) { sum = wide_add(sum, left_of(left, token)); }
    return scan(sum, thread).total;
}

// A sum cut off to a multiple of 2^-20, which a float holds exactly.
fn share(sum: vec2<u32>) -> f32 {
    return f32((sum.y << 7u) | (sum.x >> 25u)) * 9.5367431640625e-7;
}

fn random(tree: u32, node: u32, purpose: u32) -> u32 {
    return philox(vec4(tree, params.step, node, purpose), vec2(params.seed_low, params.seed_high)).x;
}

// The token at which the running sum passes `wanted`, 0 if none does: threads sum a segment each, then share the segment
// in question, then look at the few tokens that are left.
fn locate(left: Left, wanted: vec2<u32>, thread: u32) -> u32 {
    var goal = wanted;
    var start = 0u;
    var end = params.cols;
    for (var stage = 0u; stage < 2u; stage++) {
        let segment = (end - start + THREADS - 1u) / THREADS;
        let own = start + thread * segment;
        var sum = vec2(0u);
        for (var token = own; token < min(own + segment, end); token++) { sum = wide_add(sum, left_of(left, token)); }
        let found = pick(sum, scan(sum, thread).upto, goal, thread);
        if found.thread == NONE { return 0u; }
        goal = minus(goal, found.before);
        start += found.thread * segment;
        end = min(start + segment, end);
    }
    for (; start + 1u < end; start++) {
        let weight = left_of(left, start);
        if less(goal, weight) { break; }
        goal = minus(goal, weight);
    }
    return start;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tree = group_index(group, groups);
    if tree >= params.trees { return; }
    let first = tree * params.nodes;
    var node = 0u;
    var length = 0u;
    var child = 0u;
    var left = Left();
    var sum = vec2(0u);
    while child < params.nodes {
        node = child;
        if thread == 0u { path[first + length] = node; }
        length++;
        left = Left((first + node) * params.cols, 0.0, 0u);
        sum = total(left, thread);
        for (child = node + 1u; child < params.nodes; child++) {
            let token = tokens[first + child];
            if parents[first + child] != node || token >= params.cols { continue; }
            let p = left_of(left, token);
#if DRAFTS
            let q = units(share(sum) * drafts[left.row + token]);
#else
            let q = sum;
#endif
            if less(part(q, random(tree, child, 1u)).whole, p) { break; }
#if DRAFTS
            left.taken += share(sum);
            sum = total(left, thread);
#else
            if thread == 0u { rejected[left.rejected] = token; }
            left.rejected++;
            sum = minus(sum, p);
            workgroupBarrier();
#endif
        }
    }
    let token = locate(left, part(sum, random(tree, node, 2u)).whole, thread);
    if thread == 0u {
        accepted[tree] = length;
        next[tree] = token;
    }
    for (var i = length + thread; i < params.nodes; i += THREADS) { path[first + i] = NONE; }
}

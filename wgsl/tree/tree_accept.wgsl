// Walks down a tree of drafts from node 0, always to the first child whose token is the best after its parent, and tells
// the nodes on the way and the best token after the last. One workgroup a tree; its threads look for the child together.
// Children come after their parents, so the walk ends.
//!include "common/grid.wgsl"

struct Params { trees: u32, nodes: u32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> parents: array<u32>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> best: array<u32>;
@group(0) @binding(3) var<storage, read_write> path: array<u32>;
@group(0) @binding(4) var<storage, read_write> accepted: array<u32>;
@group(0) @binding(5) var<storage, read_write> next: array<u32>;

const NONE = 0xffffffffu;
var<workgroup> lowest: atomic<u32>;
var<workgroup> child: u32;

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
    while node != NONE {
        if thread == 0u {
            path[first + length] = node;
            next[tree] = best[first + node];
            atomicStore(&lowest, NONE);
        }
        length++;
        workgroupBarrier();
        for (var c = node + 1u + thread; c < params.nodes; c += THREADS) {
            if parents[first + c] == node && tokens[first + c] == best[first + node] {
                atomicMin(&lowest, c);
                break;
            }
        }
        workgroupBarrier();
        if thread == 0u { child = atomicLoad(&lowest); }
        node = workgroupUniformLoad(&child);
    }
    if thread == 0u { accepted[tree] = length; }
    for (var i = length + thread; i < params.nodes; i += THREADS) { path[first + i] = NONE; }
}

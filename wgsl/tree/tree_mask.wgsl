// Which nodes of a tree of drafts see each other: a row of bits for each node, set for its ancestors and itself; and the
// depth of each node. One thread a node: it walks up and writes its words from the last to the first, as parents come
// before their children. A parent that does not is none, so no walk can circle or leave the tree.
//!include "common/grid.wgsl"

struct Params {
    all: u32,   // nodes of all trees
    nodes: u32, // of a tree
    words: u32, // of a row of bits
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> parents: array<u32>;
@group(0) @binding(1) var<storage, read_write> mask: array<u32>;
@group(0) @binding(2) var<storage, read_write> depths: array<u32>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let own = group_index(group, groups) * THREADS + thread;
    if own >= params.all { return; }
    let tree = own / params.nodes * params.nodes;
    var rest = own - tree + 1u; // the next node of the branch, plus 1; 0 above the root
    var length = 0u;
    for (var w = params.words; w > 0u; w--) {
        let first = (w - 1u) * 32u;
        var bits = 0u;
        while rest > first {
            let node = rest - 1u;
            bits |= 1u << (node - first);
            length++;
            let parent = parents[tree + node];
            rest = select(0u, parent + 1u, parent < node);
        }
        mask[own * params.words + w - 1u] = bits;
    }
    depths[own] = length - 1u;
}

// Copies whole blocks of a cache to other blocks: K, V and scales of one layer in one launch.
// A block's rows of all heads lie together, so it is three flat ranges. One workgroup takes THREADS vec4s of one pair of
// blocks, one thread a vec4: nothing is reused, whole cache lines are in flight.
//!include "common/grid.wgsl"

struct Params {
    pairs: u32,
    blocks: u32,  // of the cache
    k4: u32,      // vec4s of a block's K,
    v4: u32,      // of its V,
    scales4: u32, // of its scales
    tiles: u32,   // workgroups of a pair
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> pairs: array<vec2<u32>>; // from, to
@group(0) @binding(1) var<storage, read_write> k: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> v: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec4<u32>>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = group_index(group, groups);
    let pair = number / params.tiles;
    if pair >= params.pairs { return; }
    let blocks = pairs[pair];
    if max(blocks.x, blocks.y) >= params.blocks { return; }
    var at = number % params.tiles * THREADS + thread;
    if at < params.k4 {
        k[blocks.y * params.k4 + at] = k[blocks.x * params.k4 + at];
        return;
    }
    at -= params.k4;
    if at < params.v4 {
        v[blocks.y * params.v4 + at] = v[blocks.x * params.v4 + at];
        return;
    }
    at -= params.v4;
    if at < params.scales4 { scales[blocks.y * params.scales4 + at] = scales[blocks.x * params.scales4 + at]; }
}

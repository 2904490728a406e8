// The two queries of each head of differential attention, each padded with zeros to the width of both: [q1 | 0] and
// [0 | q2]. Against keys stored as [k1 | k2] they have the scores q1·k1 and q2·k2, so plain attention with twice the
// heads computes both softmaxes and reads keys and values once.
// One thread a vec4 of the result; the queries are few beside the keys.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"

// `count` vec4s of the result; `d4` vec4s of a query.
struct Params { count: u32, d4: u32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> q: array<UNIT>;
@group(0) @binding(1) var<storage, read_write> out: array<UNIT>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = group_index(group, groups) * THREADS + thread;
    if at >= params.count { return; }
    let width = 2u * params.d4;
    let row = at / width;
    let column = at % width;
    let half = select(0u, 1u, column >= params.d4);
    let value = q[row * params.d4 + column - half * params.d4];
    out[at] = select(UNIT(), value, half == row % 2u);
}

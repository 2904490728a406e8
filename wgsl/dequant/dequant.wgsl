// out[N,K] = the weights that w[N,K] encodes, one part of the rows of w per launch. One thread a chunk of eight columns,
// the chunks of a row side by side: the four threads that share a packet load the same 16 bytes, which the cache serves
// once, and a workgroup writes one run of memory. Eight columns never cross a group, as groups are multiples of 16.
// WIDE: K is a multiple of 8, so rows of out start on the boundaries of a vec4 and no chunk passes a row's end.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/weight.wgsl"

struct Params {
    n: u32,             // rows of this part of w
    k: u32,
    packets: u32,
    groups: u32,
    group_shift: u32,
    n_first: u32,       // row of out of this part's first row
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<OUT_UNIT>;
//!include "common/packed.wgsl"

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let chunk = group_index(group, groups) * THREADS + thread;
    let chunks = (params.k + 7u) / 8u;
    let row = chunk / chunks;
    if row >= params.n { return; }
    let k = (chunk - row * chunks) * 8u;
    let value = weight_eight(row, k);
    let at = (params.n_first + row) * params.k + k;
#if WIDE
    out[at / 4u] = OUT_UNIT(value.lo);
    out[at / 4u + 1u] = OUT_UNIT(value.hi);
#else
#for i 4
    if k + {i}u < params.k { out[at + {i}u] = OUT_UNIT(value.lo[{i}]); }
#endfor
#for i 4
    if k + {i}u + 4u < params.k { out[at + {i}u + 4u] = OUT_UNIT(value.hi[{i}]); }
#endfor
#endif
}

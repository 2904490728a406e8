// Elementwise kernels over flat tensors of any length: out = a + b, a · b, a · scale in another dtype, or a bent
// into ±scale.
// One thread a unit of WIDTH neighbouring elements; nothing is reused, so the only aim is whole cache lines in flight.
// All tensors are bound read_write because out may be a.
#if T == f16
enable f16;
#endif
#if OUT == f16
enable f16;
#endif
//!include "common/grid.wgsl"

struct Params { count: u32, scale: f32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> a: array<UNIT>;
@group(0) @binding(1) var<storage, read_write> b: array<UNIT>;
@group(0) @binding(2) var<storage, read_write> out: array<OUT_UNIT>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = group_index(group, groups) * THREADS + thread;
    if at >= params.count { return; }
#if OP == add
    out[at] = OUT_UNIT(VALUE(a[at]) + VALUE(b[at]));
#elif OP == mul
    out[at] = OUT_UNIT(VALUE(a[at]) * VALUE(b[at]));
#elif OP == soft_cap
    // Past ±10 tanh is ±1 in f32, and some implementations overflow.
    let bent = tanh(clamp(VALUE(a[at]) / params.scale, VALUE(-10.0), VALUE(10.0)));
    out[at] = OUT_UNIT(bent * params.scale);
#else
    out[at] = OUT_UNIT(VALUE(a[at]) * params.scale);
#endif
}

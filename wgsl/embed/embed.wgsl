// Gathers rows of an embedding table: out[t] = table[ids[t]] · scale, and zeros where the id is past the table.
// One thread a unit of WIDTH neighbouring elements, the units of a token side by side, so that a workgroup reads and
// writes whole cache lines, and a single token still spreads over many workgroups.
// bf16 tables hold two elements a word, the even one in the low half.
#if TABLE == f16
enable f16;
#endif
#if OUT == f16
enable f16;
#endif
//!include "common/grid.wgsl"

struct Params { count: u32, units: u32, vocab: u32, scale: f32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<TABLE_UNIT>;
@group(0) @binding(2) var<storage, read_write> out: array<OUT_UNIT>;

fn row_unit(unit: u32) -> VALUE {
#if TABLE != bf16
    return VALUE(table[unit]);
#elif WIDTH == 4
    let words = table[unit];
    return bitcast<vec4<f32>>(vec4<u32>(words << vec2(16u), words & vec2(0xffff0000u)).xzyw);
#else
    let word = table[unit >> 1u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (unit & 1u) == 1u));
#endif
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = group_index(group, groups) * THREADS + thread;
    if at >= params.count { return; }
    let token = at / params.units;
    let id = ids[token];
    var value = VALUE(0.0);
    if id < params.vocab { value = row_unit(id * params.units + (at - token * params.units)); }
    out[at] = OUT_UNIT(value * params.scale);
}

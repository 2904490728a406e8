// out[N,K] = the weights that w[N,K] encodes, one part of the rows of w per launch. A thread takes EACH chunks of eight
// columns, THREADS apart: the threads that share a packet load the same 16 bytes, which the cache serves once, and
// a warp stores whole cache lines, 16 bytes a thread. (Threads with a packet each would store far apart: a quarter of
// the speed.) Chunks never cross a group, as groups are multiples of 16.
// ROWS: ragged (any K, in bf16 any even K: small stores), padded (K a multiple of 8), flat (no padding between the rows of w and no group as
// long as one: the host passes the part as a single row, which saves the divisions).
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/weight.wgsl"
//!include "common/bf16.wgsl"

struct Params {
    n: u32,             // rows of this part of w
    k: u32,
    packets: u32,       // see packed.wgsl
    groups: u32,
    group_shift: u32,
    first: u32,         // element of out at which this part begins
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
#if BOOK
    fill_book(thread);
    workgroupBarrier();
#endif
    let first = group_index(group, groups) * (THREADS * EACH);
#if ROWS != flat
    let start = Chunk(first / row_chunks(), first % row_chunks());
#else
    let start = Chunk(0u, first);
#endif
    // All loads before all stores: they wait together.
#for i EACH
    let place_{i} = locate(start, thread + {i}u * THREADS);
    let value_{i} = weight_eight(min(place_{i}.row, params.n - 1u), place_{i}.k);
#endfor
#for i EACH
    if place_{i}.row < params.n && place_{i}.k < params.k { store(value_{i}, place_{i}); }
#endfor
}

struct Chunk { row: u32, k: u32 }

fn row_chunks() -> u32 { return (params.k + 7u) / 8u; }

// The place of the `i`th chunk from `start` on, whose `k` is in chunks.
fn locate(start: Chunk, i: u32) -> Chunk {
    let at = start.k + i;
#if ROWS == flat
    return Chunk(0u, at * 8u);
#else
    let chunks = row_chunks();
    // Floats divide faster; they are exact here for rows of fewer than 2²⁰ chunks: a half more is that far from a whole number.
    var rows = u32((f32(at) + 0.5) / f32(chunks));
    if chunks >= 1u << 20u { rows = at / chunks; }
    return Chunk(start.row + rows, (at - rows * chunks) * 8u);
#endif
}

fn store(value: Eight, place: Chunk) {
    let at = params.first + place.row * params.k + place.k;
#if ROWS == ragged
#if OUT == bf16
    // K is even, so that words do not span rows.
#for i 2
    if place.k + 2u * {i}u < params.k { out[at / 2u + {i}u] = bf16_word(vec2<f32>(value.lo[2 * {i}], value.lo[2 * {i} + 1])); }
    if place.k + 2u * {i}u + 4u < params.k { out[at / 2u + {i}u + 2u] = bf16_word(vec2<f32>(value.hi[2 * {i}], value.hi[2 * {i} + 1])); }
#endfor
#else
#for i 4
    if place.k + {i}u < params.k { out[at + {i}u] = OUT_UNIT(value.lo[{i}]); }
    if place.k + {i}u + 4u < params.k { out[at + {i}u + 4u] = OUT_UNIT(value.hi[{i}]); }
#endfor
#endif
#elif OUT == bf16
    let low = vec2<u32>(bf16_word(value.lo.xy), bf16_word(value.lo.zw));
    out[at / 8u] = vec4<u32>(low, bf16_word(value.hi.xy), bf16_word(value.hi.zw));
#elif OUT == f16
    // Two vec4<f16> would be two stores.
    let low = vec2<u32>(pack2x16float(value.lo.xy), pack2x16float(value.lo.zw));
    out[at / 8u] = vec4<u32>(low, pack2x16float(value.hi.xy), pack2x16float(value.hi.zw));
#else
    out[at / 4u] = value.lo;
    out[at / 4u + 1u] = value.hi;
#endif
}

// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) without optional features: 64 × 64 outputs a workgroup of 256 threads, 4 × 4
// outputs a thread, K in steps of 32. Threads decode one packet of w or eight elements of a at a time into f32 tiles
// in workgroup memory, laid out [k][row] so that a thread's four rows lie side by side: 8 loads feed 16 multiply-adds.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"

const TILE = 64u;
const STEP = 32u;
const THREADS = 256u;
var<workgroup> tile_a: array<f32, 2048>;
var<workgroup> tile_w: array<f32, 2048>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tiles_n = (params.n + TILE - 1u) / TILE;
    let tile = group_index(group, groups);
    let m0 = (tile / tiles_n) * TILE;
    let n0 = (tile % tiles_n) * TILE;
    if m0 >= params.m { return; } // the fold rounded up; uniform
    let tm = thread / 16u;
    let tn = thread % 16u;
    var sum: array<vec4<f32>, 4>;
    for (var i = 0u; i < 4u; i++) { sum[i] = vec4<f32>(); }

    // This thread fills eight k of one row of each tile.
    let row = thread / 4u;
    let k_in = (thread % 4u) * 8u;
    let row_a = min(m0 + row, params.m - 1u);
    let row_w = min(n0 + row, params.n - 1u);
    let at = k_in * TILE + row;
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
        let k = k0 + k_in;
        let x = widen(load_eight(row_a, k), k);
        let v = weight_eight(row_w, k);
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) {
            tile_a[at + i * TILE] = x.lo[i];
            tile_a[at + (i + 4u) * TILE] = x.hi[i];
            tile_w[at + i * TILE] = v.lo[i];
            tile_w[at + (i + 4u) * TILE] = v.hi[i];
        }
        workgroupBarrier();
        for (var i = 0u; i < STEP; i++) {
            let xa = i * TILE + tm * 4u;
            let wa = i * TILE + tn * 4u;
            let xs = vec4<f32>(tile_a[xa], tile_a[xa + 1u], tile_a[xa + 2u], tile_a[xa + 3u]);
            let ws = vec4<f32>(tile_w[wa], tile_w[wa + 1u], tile_w[wa + 2u], tile_w[wa + 3u]);
            sum[0] = fma(vec4<f32>(xs.x), ws, sum[0]);
            sum[1] = fma(vec4<f32>(xs.y), ws, sum[1]);
            sum[2] = fma(vec4<f32>(xs.z), ws, sum[2]);
            sum[3] = fma(vec4<f32>(xs.w), ws, sum[3]);
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let m = m0 + tm * 4u + i;
        if m < params.m { finish_four(sum[i], m, n0 + tn * 4u); }
    }
}

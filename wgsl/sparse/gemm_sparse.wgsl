// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ), w N:M-sparse, without optional features: 64 × 64 outputs a workgroup of 256 threads, 4 × 4
// outputs a thread, K in steps of 32. A thread expands eight columns of a row of w, and copies eight of a, into f32 tiles in
// workgroup memory, laid out [k][row] so that a thread's four rows lie side by side. The loads of a step are issued before
// the products of the one before.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/sparse.wgsl"
//!include "common/sparse_eight.wgsl"

const TILE = 64u;
const STEP = 32u;
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
    let tm = thread / 16u * 4u;
    let tn = thread % 16u * 4u;
#for i 4
    var sum_{i} = vec4<f32>();
#endfor
    // This thread fills eight k of one row of each tile.
    let k_in = (thread % 4u) * 8u;
    let row_a = min(m0 + thread / 4u, params.m - 1u);
    let row_w = min(n0 + thread / 4u, params.n - 1u);
    let at = k_in * TILE + thread / 4u;
    var x_0 = load_quad(row_a, k_in);
    var x_1 = load_quad(row_a, k_in + 4u);
    var fetched = fetch_eight(row_w, k_in);
    var scale = scale_at(row_w, k_in);
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
        let k = k0 + k_in;
        let lo = inside(x_0, k);
        let hi = inside(x_1, k + 4u);
        let v = expand_eight(fetched, k, scale);
        workgroupBarrier();
#for i 4
        tile_a[at + {i}u * TILE] = lo[{i}];
        tile_a[at + {i}u * TILE + 4u * TILE] = hi[{i}];
        tile_w[at + {i}u * TILE] = v.lo[{i}];
        tile_w[at + {i}u * TILE + 4u * TILE] = v.hi[{i}];
#endfor
        workgroupBarrier();
        x_0 = load_quad(row_a, k + STEP);
        x_1 = load_quad(row_a, k + STEP + 4u);
        fetched = fetch_eight(row_w, k + STEP);
        scale = scale_at(row_w, k + STEP);
        for (var i = 0u; i < STEP; i++) {
            let xa = i * TILE + tm;
            let wa = i * TILE + tn;
            let ws = vec4<f32>(tile_w[wa], tile_w[wa + 1u], tile_w[wa + 2u], tile_w[wa + 3u]);
#for i 4
            sum_{i} = fma(vec4<f32>(tile_a[xa + {i}u]), ws, sum_{i});
#endfor
        }
    }
#for i 4
#for j 4
    if m0 + tm + {i}u < params.m && n0 + tn + {j}u < params.n {
        finish(sum_{i}[{j}], m0 + tm + {i}u, n0 + tn + {j}u);
    }
#endfor
#endfor
}

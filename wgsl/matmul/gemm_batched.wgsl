// out[b] = epilogue(a[b] · w[b]), w[b] as [N, K] rows or (KN) [K, N]: TILE_M × 64 outputs a workgroup of 256 threads,
// REPEAT = TILE_M / 16 rows of four outputs a thread, K in steps of 32. Threads load fours of neighbours (one by one where
// rows do not start on fours) into f32 tiles in workgroup memory, laid out [k][row]; the swizzle spreads over the banks
// what neighbouring threads store, and keeps a thread's four rows side by side. A batch stride of 0 broadcasts.
// Operands 0 to 3 are a, w, bias and residual: KIND0 is the dtype of a, UNIT0 what its buffer holds, WIDE0 says fours.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/activation.wgsl"
//!include "common/bf16.wgsl"
//!include "common/batched.wgsl"

const TILE_N = 64u;
const STEP = 32u;
var<workgroup> tile_a: array<f32, SIZE_A>;
var<workgroup> tile_w: array<f32, 2048>;

fn fetch0(at: u32) -> UNIT0 { return a[at]; }
fn fetch1(at: u32) -> UNIT1 { return w[at]; }
fn fetch2(at: u32) -> UNIT2 { return bias[at]; }
fn fetch3(at: u32) -> UNIT3 { return residual[at]; }

#for i 4
// Elements c to c + 3 of the row of operand {i} that starts at `start`; zeros from its `width` > 0 on.
fn load{i}(start: u32, c: u32, width: u32) -> vec4<f32> {
#if WIDE{i}
    let unit = fetch{i}((start + min(c, width - 4u)) / 4u);
#if KIND{i} == bf16
    let values = bitcast<vec4<f32>>(vec4<u32>(unit << vec2(16u), unit & vec2(0xffff0000u)).xzyw);
#else
    let values = vec4<f32>(unit);
#endif
    return select(vec4<f32>(), values, c < width);
#else
    let columns = vec4(c, c + 1u, c + 2u, c + 3u);
    let at = min(columns, vec4(width - 1u)) + start;
    let values = vec4(element{i}(at.x), element{i}(at.y), element{i}(at.z), element{i}(at.w));
    return select(vec4<f32>(), values, columns < vec4(width));
#endif
}
#if !WIDE{i}
fn element{i}(at: u32) -> f32 {
#if KIND{i} == bf16
    return bf16_of(fetch{i}(at >> 1u), at);
#else
    return f32(fetch{i}(at));
#endif
}
#endif
#endfor

// Where a tile of `rows` rows keeps a row's element k.
fn place(rows: u32, row: u32, k: u32) -> u32 {
    return k * rows + (row ^ (k & (rows - 4u) & 28u));
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tiles_n = (params.n + TILE_N - 1u) / TILE_N;
    let tiles = tiles_n * ((params.m + TILE_M - 1u) / TILE_M);
    let index = group_index(group, groups);
    let batch = index / tiles;
    if batch >= params.batches { return; } // the fold rounded up; uniform
    let m0 = index % tiles / tiles_n * TILE_M;
    let n0 = index % tiles % tiles_n * TILE_N;
    let batch_a = batch * params.stride_a;
    let batch_w = batch * params.stride_w;
    let tm = thread / 16u * REPEAT;
    let tn = thread % 16u * 4u;
#for r REPEAT
    var sum{r} = vec4<f32>();
#endfor

    // The fours that this thread loads: eight to a row of 32 k, or 16 to a row of 64 n.
    let row = thread / 8u;
    let part = thread % 8u * 4u;
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
#for i LOADS_A
        let a{i} = load0(batch_a + min(m0 + row + {i}u * 32u, params.m - 1u) * params.k, k0 + part, params.k);
#endfor
#for i 2
#if KN
        let kw{i} = thread / 16u + {i}u * 16u;
        let row{i} = load1(batch_w + min(k0 + kw{i}, params.k - 1u) * params.n, n0 + tn, params.n);
        let w{i} = select(vec4<f32>(), row{i}, k0 + kw{i} < params.k);
#else
        let w{i} = load1(batch_w + min(n0 + row + {i}u * 32u, params.n - 1u) * params.k, k0 + part, params.k);
#endif
#endfor
        workgroupBarrier();
#for j 4
#for i LOADS_A
        // A short tile has no row for the upper half of the threads.
        if row < TILE_M { tile_a[place(TILE_M, row + {i}u * 32u, part + {j}u)] = a{i}[{j}]; }
#endfor
#for i 2
#if KN
        tile_w[place(TILE_N, tn, kw{i}) + {j}u] = w{i}[{j}];
#else
        tile_w[place(TILE_N, row + {i}u * 32u, part + {j}u)] = w{i}[{j}];
#endif
#endfor
#endfor
        workgroupBarrier();
        for (var i = 0u; i < STEP; i++) {
            let start = place(TILE_N, tn, i);
            let ws = vec4(tile_w[start], tile_w[start + 1u], tile_w[start + 2u], tile_w[start + 3u]);
            // Of one row, or of four from a multiple of four on.
            let rows = place(TILE_M, tm, i);
#for r REPEAT
            sum{r} = fma(vec4(tile_a[rows + {r}u]), ws, sum{r});
#endfor
        }
    }
#for r REPEAT
    finish(sum{r}, batch, m0 + tm + {r}u, n0 + tn);
#endfor
}

// Stores four outputs from column `n` of row `m` on, where there are such.
fn finish(sums: vec4<f32>, batch: u32, m: u32, n: u32) {
    if m >= params.m || n >= params.n { return; }
    let row = (batch * params.m + m) * params.n;
    var x = sums * params.scale;
    if (params.flags & 1u) != 0u { x += load2(batch * params.stride_bias, n, params.n); }
    x = activate_four(x, params.activation);
    if (params.flags & 2u) != 0u { x += load3(row, n, params.n); }
#if KIND3 == bf16
    let low = bf16_word(x.xy);
    let high = bf16_word(x.zw);
#if WIDE3
    out[(row + n) / 4u] = vec2(low, high);
#else
    // N is even.
    out[(row + n) / 2u] = low;
    if n + 2u < params.n { out[(row + n) / 2u + 1u] = high; }
#endif
#elif WIDE3
    out[(row + n) / 4u] = UNIT3(x);
#else
#for j 4
    if n + {j}u < params.n { out[row + n + {j}u] = UNIT3(x[{j}]); }
#endfor
#endif
}

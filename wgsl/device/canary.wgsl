// product[16,16] = scale · a[16,16] · b[16,16]ᵀ + place by one subgroup, of matrices made of what each thread holds, where place is 16 · row +
// column: see src/device/canary_spirv.rs.
enable f16;
enable wgpu_cooperative_matrix;
//!include "common/coop_matrix.wgsl"
//!include "common/fragment.wgsl"

struct Params { scale: f32 }
var<immediate> params: Params;

@group(0) @binding(0) var<storage, read> a: array<f16>;
@group(0) @binding(1) var<storage, read> b: array<f16>;
@group(0) @binding(2) var<storage, read_write> product: array<f32>;

// Columns 2j, 2j + 1, 2j + 8 and 2j + 9 of a row.
fn a_of(row: u32, j: u32) -> vec4<f16> {
    let at = row * SIDE + 2u * j;
    return vec4<f16>(a[at], a[at + 1u], a[at + 8u], a[at + 9u]);
}
fn b_of(row: u32, j: u32) -> vec4<f16> {
    let at = row * SIDE + 2u * j;
    return vec4<f16>(b[at], b[at + 1u], b[at + 8u], b[at + 9u]);
}

@compute @workgroup_size(32)
fn main(@builtin(subgroup_invocation_id) lane: u32) {
    let i = lane / 4u;
    let j = lane % 4u;
    let scale = f16(params.scale);
    let left = fragment_a(a_of(i, j) * scale, a_of(i + 8u, j) * scale);
    let right = fragment_b(b_of(i, j), b_of(i + 8u, j));
    var at = array<u32, 8>();
    var places = array<f32, 8>();
    for (var e = 0u; e < 8u; e++) {
        at[e] = (i + e / 4u * 8u) * SIDE + 2u * j + e / 2u % 2u * 8u + e % 2u;
        places[e] = f32(at[e]);
    }
    let elements = elements_of(coopMultiplyAdd(left, right, fragment_c(places)));
    for (var e = 0u; e < 8u; e++) { product[at[e]] = elements[e]; }
}

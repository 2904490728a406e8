// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ), w N:M-sparse, on cooperative matrices: the walk, tiles and loads ahead of
// matmul/gemm_coop.wgsl. A thread expands eight columns at a time of a row of w, pruned ones as zeros, into the f16 tile: kept
// values move a half or a quarter of the bytes, and the matrix units do the work of the dense product.
enable f16;
enable wgpu_cooperative_matrix;
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/sparse.wgsl"
//!include "common/sparse_eight.wgsl"

// Eight activations of a row from column `c` on; past the row's end zeros, but only when they are widened.
struct RawEight { lo: vec4<TA>, hi: vec4<TA> }
fn load_eight(row: u32, c: u32) -> RawEight { return RawEight(load_quad(row, c), load_quad(row, c + 4u)); }
fn widen(raw: RawEight, c: u32) -> Eight { return Eight(inside(raw.lo, c), inside(raw.hi, c + 4u)); }

//!include "common/coop_product.wgsl"

alias Affine = f32;
fn fetch_affine(row: u32, k: u32) -> Affine { return scale_at(row, k); }
fn fetch_packet(row: u32, k: u32) -> Fetched { return fetch_eight(row, k); }

fn put_w(at: u32, packet: Fetched, chunk: u32, scale: Affine) {
    let v = expand_eight(packet, chunk * 8u, scale);
    store_w(at, vec4<f16>(v.lo), vec4<f16>(v.hi));
}

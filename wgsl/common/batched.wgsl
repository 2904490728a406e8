// Parameters and bindings of the batches of products. UNIT0 to UNIT3 are what the buffers of a, w, bias and residual hold.
struct Params {
    m: u32,
    n: u32,
    k: u32,
    batches: u32,
    stride_a: u32,      // elements start one batch to the next, or 0
    stride_w: u32,
    stride_bias: u32,
    flags: u32,         // 1 bias, 2 residual
    activation: u32,
    scale: f32,         // of the sums
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> a: array<UNIT0>;
@group(0) @binding(1) var<storage, read> w: array<UNIT1>;
@group(0) @binding(2) var<storage, read> bias: array<UNIT2>;
@group(0) @binding(3) var<storage, read> residual: array<UNIT3>;
@group(0) @binding(4) var<storage, read_write> out: array<UNIT3>;

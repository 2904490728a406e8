// RMS normalisation of rows, with an optional residual added (and written back) first. `base` is 1 for weights that
// are stored as their distance from 1, else 0.
// One workgroup a row: rows are independent, and a row of a few thousand values keeps 256 threads busy. Each thread
// walks the row with a stride of the workgroup, so neighbouring threads read neighbouring values; the second walk
// finds the row in the cache.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/reduce.wgsl"

struct Params { rows: u32, cols: u32, eps: f32, base: f32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> x: array<T>;
@group(0) @binding(1) var<storage, read> residual: array<T>;
@group(0) @binding(2) var<storage, read> weight: array<T>;
@group(0) @binding(3) var<storage, read_write> out: array<T>;

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let row = group_index(place.group, place.groups);
    if row >= params.rows { return; }
    let first = row * params.cols;
    var squares = 0.0;
    for (var c = lane.thread; c < params.cols; c += THREADS) {
        var value = f32(x[first + c]);
#if RESIDUAL
        value += f32(residual[first + c]);
        x[first + c] = T(value);
#endif
        squares += value * value;
    }
    let scale = inverseSqrt(workgroup_sum(squares, lane) / f32(params.cols) + params.eps);
    for (var c = lane.thread; c < params.cols; c += THREADS) {
        // With a residual this thread re-reads what it wrote itself, so no barrier is needed; nor if `out` is `x`.
        out[first + c] = T(f32(x[first + c]) * scale * (params.base + f32(weight[c])));
    }
}

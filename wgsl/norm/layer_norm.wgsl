// Layer normalisation of rows, with an optional residual added (and written back) first.
// One workgroup a row, as in rms_norm. The variance is a sum of squared distances from a mean that is known by then, in a
// walk of its own: Σx² − n·mean² cancels where rows lie far from zero, and a row's second walk finds it in the cache.
// The same walk sums the distances themselves, which gives what rounding took from the mean.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/reduce.wgsl"

struct Params { rows: u32, cols: u32, eps: f32, biased: u32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> x: array<T>;
@group(0) @binding(1) var<storage, read> residual: array<T>;
@group(0) @binding(2) var<storage, read> weight: array<T>;
@group(0) @binding(3) var<storage, read> bias: array<T>;
@group(0) @binding(4) var<storage, read_write> out: array<T>;

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let row = group_index(place.group, place.groups);
    if row >= params.rows { return; }
    let first = row * params.cols;
    let count = f32(params.cols);
    var sum = 0.0;
    for (var c = lane.thread; c < params.cols; c += THREADS) {
        var value = f32(x[first + c]);
#if RESIDUAL
        value += f32(residual[first + c]);
        x[first + c] = T(value);
#endif
        sum += value;
    }
    let mean = workgroup_sum(sum, lane) / count;
    var distances = 0.0;
    var squares = 0.0;
    for (var c = lane.thread; c < params.cols; c += THREADS) {
        // A thread re-reads only what it wrote itself, so no barrier is needed.
        let distance = f32(x[first + c]) - mean;
        distances += distance;
        squares += distance * distance;
    }
    let rest = workgroup_sum(distances, lane) / count;
    let variance = max(workgroup_sum(squares, lane) / count - rest * rest, 0.0);
    let scale = inverseSqrt(variance + params.eps);
    for (var c = lane.thread; c < params.cols; c += THREADS) {
        let value = (f32(x[first + c]) - mean - rest) * scale * f32(weight[c]);
        out[first + c] = T(value + select(0.0, f32(bias[c]), params.biased == 1u));
    }
}

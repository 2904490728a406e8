// Softmax of rows: out = exp(scale · (x − m)) / Σ exp(scale · (x − m)), with m the x of the greatest exponent.
// One workgroup a row, two walks: the first finds maximum and sum together (online, rescaling the sum when the maximum
// grows), the second writes; it finds the row in the cache. Units of WIDTH neighbours, a stride of the workgroup.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/reduce.wgsl"

// `units` of WIDTH columns.
struct Params { rows: u32, units: u32, scale: f32 }
var<immediate> params: Params;
// read_write because `out` may be `x`.
@group(0) @binding(0) var<storage, read_write> x: array<UNIT>;
@group(0) @binding(1) var<storage, read_write> out: array<UNIT>;

const LEAST = -1e30; // stands for −∞

// Ascends with the exponent: x, or −x for a negative scale. Differences of these are scaled, not the values, so that
// rows far from zero lose no digits.
fn level(at: u32) -> VALUE {
    let value = VALUE(x[at]);
    return max(select(value, -value, params.scale < 0.0), VALUE(LEAST));
}

fn greatest(v: VALUE) -> f32 {
#if WIDTH == 4
    return max(max(v.x, v.y), max(v.z, v.w));
#else
    return v;
#endif
}

fn total(v: VALUE) -> f32 {
#if WIDTH == 4
    return (v.x + v.y) + (v.z + v.w);
#else
    return v;
#endif
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let row = group_index(place.group, place.groups);
    if row >= params.rows { return; }
    let first = row * params.units;
    let scale = abs(params.scale);
    var most = LEAST;
    var sum = 0.0;
    for (var i = lane.thread; i < params.units; i += THREADS) {
        let v = level(first + i);
        let higher = max(most, greatest(v));
        sum = sum * exp((most - higher) * scale) + total(exp((v - higher) * scale));
        most = higher;
    }
    let row_most = workgroup_max(most, lane);
    // A thread without columns has the sum 0.
    let share = 1.0 / workgroup_sum(sum * exp((most - row_most) * scale), lane);
    for (var i = lane.thread; i < params.units; i += THREADS) {
        // This thread alone reads and writes these columns, so that `out` may be `x`.
        out[first + i] = UNIT(exp((level(first + i) - row_most) * scale) * share);
    }
}

// Index of the greatest logit of each row, the lowest of equals.
// One workgroup a row. Each thread walks the row in vectors of four with a stride of the workgroup, four vectors at a
// time so that four loads are in flight, and keeps the first of its greatest; the workgroup then agrees on the best.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/logits.wgsl"
//!include "common/reduce_best.wgsl"

struct Params { rows: u32, cols: u32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> logits: array<UNIT>;
@group(0) @binding(1) var<storage, read_write> index: array<u32>;

// Takes in the keys of a vector that lies behind everything `best` has seen.
fn seen(best: vec2<u32>, keys: vec4<u32>, unit: u32) -> vec2<u32> {
    let most = max(max(keys.x, keys.y), max(keys.z, keys.w));
    if most <= best.x { return best; }
    let place = select(select(select(3u, 2u, keys.z == most), 1u, keys.y == most), 0u, keys.x == most);
    return vec2(most, 4u * unit + place);
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let row = group_index(place.group, place.groups);
    if row >= params.rows { return; }
    let units = logit_units();
    var best = vec2(0u);
    var unit = lane.thread;
    for (; unit + 3u * THREADS < units; unit += 4u * THREADS) {
        let a = keys4(row, unit);
        let b = keys4(row, unit + THREADS);
        let c = keys4(row, unit + 2u * THREADS);
        let d = keys4(row, unit + 3u * THREADS);
        best = seen(seen(best, a, unit), b, unit + THREADS);
        best = seen(seen(best, c, unit + 2u * THREADS), d, unit + 3u * THREADS);
    }
    for (; unit < units; unit += THREADS) {
        best = seen(best, keys4(row, unit), unit);
    }
    best = workgroup_best(best, lane);
    if lane.thread == 0u { index[row] = best.y; }
}

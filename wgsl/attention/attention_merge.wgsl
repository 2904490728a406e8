// Merges results over parts of the keys, in a fixed order: out = Σ wₚ·sumₚ / Σ wₚ·totalₚ with wₚ = 2^(maxₚ − max).
// attention_merge has the unnormalised sums, maxima and totals of attention_decode's splits; merge_lse (LSES) has results
// and their lse = ln Σ exp(score): a result is a sum whose maximum is its lse and whose total is 1.
// A sink is one more part, with a value of 0. lse of the whole = ln Σ exp(score) over keys and sink.
// One workgroup a row (there are few, and each has up to 256 parts of D values to read): one thread a part finds
// the weights, then one thread a vec4 of columns, thread groups on different parts, summed in workgroup memory.
//!include "common/fours.wgsl"
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/reduce.wgsl"

struct Params { rows: u32, splits: u32, d4: u32, heads: u32, sinks: u32, lse: u32 }
var<immediate> params: Params;
#if LSES
@group(0) @binding(0) var<storage, read> parts: array<Fours>;
@group(0) @binding(1) var<storage, read> lses: array<f32>;
@group(0) @binding(2) var<storage, read> sinks: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<Fours>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;
#else
@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> sinks: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<Fours>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
#endif

const LOG2_E = 1.4426950408889634;
var<workgroup> weights: array<f32, THREADS>;
var<workgroup> columns: array<vec4<f32>, THREADS>;

#if LSES
fn stats(row: u32, part: u32) -> vec2<f32> {
    return vec2(lses[part * params.rows + row] * LOG2_E, 1.0);
}

fn sum_of(row: u32, part: u32, c: u32) -> vec4<f32> {
    return widen(parts[(part * params.rows + row) * params.d4 + c]);
}
#else
// The maxima and totals lie behind the sums of all rows and splits; a pair never straddles a vec4.
fn stats(row: u32, part: u32) -> vec2<f32> {
    let i = row * params.splits + part;
    let pairs = sums[params.rows * params.splits * params.d4 + i / 2u];
    return select(pairs.xy, pairs.zw, i % 2u == 1u);
}

fn sum_of(row: u32, part: u32, c: u32) -> vec4<f32> {
    return sums[(row * params.splits + part) * params.d4 + c];
}
#endif

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let row = group_index(place.group, place.groups);
    if row >= params.rows { return; }
    let t = lane.thread;
    var stat = vec2(-1e30, 0.0);
    if t < params.splits { stat = stats(row, t); }
    var sink = -1e30;
    if params.sinks != 0u { sink = sinks[row % params.heads] * LOG2_E; }
    let most = max(workgroup_max(stat.x, lane), sink);
    let weight = exp2(stat.x - most);
    weights[t] = weight;
    var total = workgroup_sum(weight * stat.y, lane);
    if params.sinks != 0u { total += exp2(sink - most); }
    if params.lse != 0u && t == 0u { lse[row] = select(-1e30, (most + log2(total)) / LOG2_E, total > 0.0); }

    let d4 = params.d4;
    let teams = THREADS / d4;
    var sum = vec4<f32>();
    // Threads past the last team start past the last part.
    for (var s = select(params.splits, t / d4, t / d4 < teams); s < params.splits; s += teams) {
        sum += weights[s] * sum_of(row, s, t % d4);
    }
    columns[t] = sum;
    workgroupBarrier();
    if t < d4 {
        for (var g = 1u; g < teams; g++) { sum += columns[g * d4 + t]; }
        out[row * d4 + t] = narrow(select(vec4<f32>(), sum / total, total > 0.0));
    }
}

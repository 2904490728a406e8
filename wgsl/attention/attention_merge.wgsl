// Merges results over parts of the keys, in a fixed order: out = Σ wₚ·sumₚ / Σ wₚ·totalₚ with wₚ = 2^(maxₚ − max).
// attention_merge has the unnormalised sums, maxima and totals of attention_decode's splits; merge_lse (LSES) has results
// and their lse = ln Σ exp(score): a result is a sum whose maximum is its lse and whose total is 1.
// A sink is one more part, with a value of 0. lse of the whole = ln Σ exp(score) over keys and sink.
// There are few rows and up to 256 parts, so latency is all that counts: a workgroup merges COLUMNS vec4s of a row, one
// thread loads a vec4 of every 32nd part, the first of them before it is known what they weigh.
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
const TEAMS = THREADS / COLUMNS;

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
    let index = group_index(place.group, place.groups);
    let chunks = (params.d4 + COLUMNS - 1u) / COLUMNS;
    let row = index / chunks;
    if row >= params.rows { return; }
    let t = lane.thread;
    let team = t / COLUMNS;
    let column = index % chunks * COLUMNS + t % COLUMNS;
    let c = min(column, params.d4 - 1u);
    let last = params.splits - 1u;
#for u EARLY
    let early_{u} = sum_of(row, min(team + {u}u * TEAMS, last), c);
#endfor
    var stat = vec2(-1e30, 0.0);
    if t < params.splits { stat = stats(row, t); }
    var sink = -1e30;
    if params.sinks != 0u { sink = sinks[row % params.heads] * LOG2_E; }
    let most = max(workgroup_max(stat.x, lane), sink);
    let weight = select(0.0, exp2(stat.x - most), t < params.splits);
    weights[t] = weight;
    var total = workgroup_sum(weight * stat.y, lane);
    if params.sinks != 0u { total += exp2(sink - most); }
    if params.lse != 0u && column == 0u && t == 0u {
        lse[row] = select(-1e30, (most + log2(total)) / LOG2_E, total > 0.0);
    }

    var sum = vec4<f32>();
#for u EARLY
    sum += weights[team + {u}u * TEAMS] * early_{u};
#endfor
    for (var s = team + EARLY * TEAMS; s < params.splits; s += TEAMS) { sum += weights[s] * sum_of(row, s, c); }
    columns[t] = sum;
    for (var step = THREADS / 2u; step >= COLUMNS; step >>= 1u) {
        workgroupBarrier();
        if t < step { columns[t] += columns[t + step]; }
    }
    if t < COLUMNS && column < params.d4 {
        out[row * params.d4 + column] = narrow(select(vec4<f32>(), columns[t] / total, total > 0.0));
    }
}

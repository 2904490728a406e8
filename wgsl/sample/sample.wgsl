// Draws one token a row: temperature, top-k, softmax, top-p, inverse CDF in index order. One workgroup a row, no sort.
// A filter is a threshold on the logits' ordered keys plus an index up to which ties at it are kept. It is found like
// the digits of a number: a histogram of weights over 256 bins, the bin where the weight from above reaches what is
// needed, then the next digit inside that bin; first by distance to the maximum, which spreads real logits evenly (no
// crowding on few atomics), then by the key's four bytes. The weight is 1 for top-k, the probability for top-p. The bin
// that the first digit finds mostly has few keys: the walk for the second one lists them, and the others do without the row.
// Probabilities are 64-bit integers in units of 2^-45 of the greatest: sums do not depend on the order of threads, so
// that filters and draws are exact and repeatable.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/logits.wgsl"
//!include "common/philox.wgsl"
//!include "common/wide_scan.wgsl"

struct Params {
    rows: u32,
    cols: u32,
    top_k: u32, // 0 for off
    top_p: u32, // in units of 2^-32, 0 for off
    seed_low: u32,
    seed_high: u32,
    step: u32,
    inv_temperature: f32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> logits: array<UNIT>;
@group(0) @binding(1) var<storage, read_write> index: array<u32>;

var<workgroup> low: array<atomic<u32>, THREADS>;
var<workgroup> high: array<atomic<u32>, THREADS>;
var<workgroup> most: atomic<u32>;
var<workgroup> list: array<u32, ROOM>; // keys of a bin, in any order
var<workgroup> listed: atomic<u32>; // so many, or more than there is room for

// Infinities count as ±10^38, so that differences stay finite.
fn level_of(key: u32) -> f32 {
    return clamp(order_value(key), -1e38, 1e38);
}

// exp(-gap / temperature) in units of 2^-45. All steps after exp are exact.
fn mass(gap: f32) -> vec2<u32> {
    let weight = exp(-min(gap * params.inv_temperature, 100.0)) * 8192.0;
    let whole = floor(weight);
    return vec2(u32((weight - whole) * 4294967296.0), u32(whole));
}

// What is kept: keys above `key`, and of those equal to it the ones at an index below `limit`.
struct Cut { key: u32, limit: u32 }
fn kept(cut: Cut, key: u32, i: u32) -> bool {
    return key > cut.key || (key == cut.key && i < cut.limit);
}

// The first index at which the running weight of kept logits passes `wanted`, or, for a draw, the share `wanted.x` /
// 2^32 of their total; `only`, unless 0, restricts them to one key. Threads first sum a segment of the row each, then
// share the segment in question.
fn locate(row: u32, cut: Cut, only: u32, top: f32, masses: bool, draw: bool, wanted: vec2<u32>, thread: u32) -> u32 {
    let units = logit_units();
    let segment = (units + THREADS - 1u) / THREADS; // at most THREADS, for 2^18 columns
    var goal = wanted;
    var start = thread * segment;
    var count = segment;
    var mine = 0u;
    var who = 0u;
    let stages = select(2u, 1u, segment == 1u); // segments of one vector are not shared
    for (var stage = 0u; stage < stages; stage++) {
        var sum = vec2(0u);
        for (var unit = start; unit < min(start + count, units); unit++) {
            sum = wide_add(sum, kept_weight(row, unit, 4u, cut, only, top, masses));
        }
        let scanned = scan(sum, thread);
        if stage == 0u && draw { goal = part(scanned.total, wanted.x).whole; }
        let found = pick(sum, scanned.upto, goal, thread);
        if found.thread == NONE { return 0u; }
        goal = minus(goal, found.before);
        mine = start;
        who = found.thread;
        start = found.thread * segment + thread;
        count = select(0u, 1u, thread < segment);
    }
    // The picked thread looks inside the vector that it summed.
    if thread == who {
        var n = 1u;
        for (; n < 4u; n++) {
            if less(goal, kept_weight(row, mine, n, cut, only, top, masses)) { break; }
        }
        picked = 4u * mine + n - 1u;
    }
    return workgroupUniformLoad(&picked);
}

// The weight of the first `n` logits of a vector.
fn kept_weight(row: u32, unit: u32, n: u32, cut: Cut, only: u32, top: f32, masses: bool) -> vec2<u32> {
    let keys = keys4(row, unit);
    var sum = vec2(0u);
    for (var i = 0u; i < n; i++) {
        let key = keys[i];
        if kept(cut, key, 4u * unit + i) && (only == 0u || key == only) {
            var weight = vec2(1u, 0u);
            if masses { weight = mass(top - level_of(key)); }
            sum = wide_add(sum, weight);
        }
    }
    return sum;
}

// Adds a key to a bin of the histogram.
fn weigh(bin: u32, gap: f32, masses: bool) {
    var weight = vec2(1u, 0u);
    if masses { weight = mass(gap); }
    if weight.x != 0u {
        let old = atomicAdd(&low[bin], weight.x);
        if old > NONE - weight.x { weight.y += 1u; }
    }
    if weight.y != 0u { atomicAdd(&high[bin], weight.y); }
}

// Narrows `cut` to the top_k greatest, or with `masses` to the fewest greatest whose mass reaches top_p of the whole.
fn narrowed(row: u32, cut: Cut, top: f32, masses: bool, thread: u32) -> Cut {
    let bins_per_unit = select(8.0, 8.0 * params.inv_temperature, masses);
    var need = vec2(params.top_k, 0u);
    var coarse = 0u;
    var prefix = 0u;
    for (var level = 0u; level < 5u; level++) {
        let shift = 32u - 8u * max(level, 1u);
        atomicStore(&low[thread], 0u);
        atomicStore(&high[thread], 0u);
        if thread == 0u && level == 0u { atomicStore(&listed, 0u); }
        workgroupBarrier();
        // Level 1 has listed the keys of the coarse bin.
        let count = atomicLoad(&listed);
        let few = select(0u, count, level > 1u && count <= ROOM);
        for (var i = thread; i < few; i += THREADS) {
            let key = list[i];
            if (key >> (shift + 8u)) == prefix { weigh((key >> shift) & 255u, top - level_of(key), masses); }
        }
        for (var unit = thread; unit < logit_units() && few == 0u; unit += THREADS) {
            let keys = keys4(row, unit);
            for (var i = 0u; i < 4u; i++) {
                let key = keys[i];
                if !kept(cut, key, 4u * unit + i) { continue; }
                let gap = top - level_of(key);
                var bin = 255u - u32(min(gap * bins_per_unit, 255.0));
                if level == 0u {
                    // The last bin takes all that is far below: no mass, and too many to count unless they matter.
                    if bin == 0u { continue; }
                } else {
                    if bin != coarse || (level > 1u && (key >> (shift + 8u)) != prefix) { continue; }
                    bin = (key >> shift) & 255u;
                    if level == 1u && coarse != 0u {
                        let at = atomicAdd(&listed, 1u);
                        if at < ROOM { list[at] = key; }
                    }
                }
                weigh(bin, gap, masses);
            }
        }
        workgroupBarrier();
        let value = vec2(atomicLoad(&low[255u - thread]), atomicLoad(&high[255u - thread]));
        let scanned = scan(value, thread);
        if level == 0u && masses {
            let share = part(scanned.total, params.top_p);
            need = wide_add(share.whole, vec2(select(0u, 1u, share.more), 0u));
        }
        if all(need == vec2(0u)) { return cut; } // nothing but NaN
        let found = pick(value, scanned.upto, minus(need, vec2(1u, 0u)), thread);
        if found.thread == NONE {
            if level > 0u { return cut; } // fewer than needed: all are kept
            need = minus(need, scanned.total);
            continue;
        }
        need = minus(need, found.before);
        if level == 0u {
            coarse = 255u - found.thread;
            continue;
        }
        prefix = (prefix << 8u) | (255u - found.thread);
        if level == 4u && all(need == found.value) {
            // All ties are needed: those at the key of the cut so far are subject to its limit as before.
            if prefix == cut.key { return cut; }
            return Cut(prefix, NONE);
        }
    }
    // Not all of the ties are needed.
    return Cut(prefix, locate(row, cut, prefix, top, masses, false, minus(need, vec2(1u, 0u)), thread) + 1u);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group_index(group, groups);
    if row >= params.rows { return; }
    if thread == 0u { atomicStore(&most, 0u); }
    workgroupBarrier();
    var mine = 0u;
    for (var unit = thread; unit < logit_units(); unit += THREADS) {
        let keys = keys4(row, unit);
        mine = max(mine, max(max(keys.x, keys.y), max(keys.z, keys.w)));
    }
    atomicMax(&most, mine);
    workgroupBarrier();
    let top = level_of(atomicLoad(&most));

    var cut = Cut(0u, 0u); // all but NaN
    if params.top_k != 0u { cut = narrowed(row, cut, top, false, thread); }
    if params.top_p != 0u { cut = narrowed(row, cut, top, true, thread); }
    let random = philox(vec4(row, params.step, 0u, 0u), vec2(params.seed_low, params.seed_high)).x;
    let chosen = locate(row, cut, 0u, top, true, true, vec2(random, 0u), thread);
    if thread == 0u { index[row] = chosen; }
}

// Attention of few queries over many keys, on cooperative matrices of what each thread holds (common/fragment.wgsl): as
// attention_decode.wgsl, but a subgroup takes 16 keys at a time, for eight folded rows, and nothing passes through workgroup
// memory on the way.
//   Sᵀ = K·Qᵀ: lane 4i + j loads, of keys i and i + 8, every fourth load of the row, from j on: the order of the columns of Q and K does not matter
// as long as it is the same. It has then the scores of these keys and of rows 2j and 2j + 1. Of B only the first eight columns are used; what
// becomes of the others the compiler leaves out.
//   Oᵀ = Vᵀ·Pᵀ: weights go to the lanes where B wants them, by four shuffles. Lane 4i + j loads every eighth load of V's rows of keys 2j, 2j + 1,
// 2j + 8 and 2j + 9, from i on, and brings two keys of a column together into a word. It ends with two columns of rows 2j and 2j + 1.
// Codes are not decoded, but made the halves that their bits are (kv_halves.wgsl). Scales of K multiply scores, those of V weights, which
// are kept in the range of halves by a factor of each row.
enable f16;
enable wgpu_cooperative_matrix;
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/kinds.wgsl"
//!include "common/coop_matrix.wgsl"
//!include "common/fragment.wgsl"
//!include "common/decode_params.wgsl"
//!include "common/kv_decode.wgsl"
//!include "common/kv_halves.wgsl"
//!include "common/decode_query.wgsl"
//!include "common/asked.wgsl"

@group(0) @binding(0) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> k: array<KLoad>;
@group(0) @binding(2) var<storage, read> v: array<VLoad>;
@group(0) @binding(3) var<storage, read> scales: array<u32>; // QUANTISED: of K and V, f16, per row
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<u32>;
#if !JOINED
@group(0) @binding(7) var<storage, read_write> workspace: array<f32>;
#endif

const R = 8u;
const STEP = SUBGROUPS * SIDE; // keys of a step of the workgroup
const THREADS = SUBGROUPS * 32u;
const MASKED = -1e30;
const MOST_WEIGHT = 256.0;
const K_LOADS = KC * 4u; // of a row
const V_LOADS = VC * 8u;
const LEAST_SCALE = 5.9604645e-8; // of f16, but for zero

var<workgroup> tops: array<f32, SUBGROUPS * R>;
var<workgroup> totals: array<f32, SUBGROUPS * R>;
// Sums of four rows, two columns at a time: [subgroup][row][piece of V's load][matrix][lane].
const PAIRS = VC * VY * 4u * 8u;
var<workgroup> pool: array<vec2<f32>, SUBGROUPS * 4u * PAIRS>;
#if JOINED
//!include "common/decode_join.wgsl"
//!include "common/decode_finish.wgsl"
#else
//!include "common/decode_store.wgsl"
#endif

// Where a pair of columns of the pool is in a row.
fn column_of(pair: u32) -> u32 {
    let piece = pair / 32u;
    return ((piece / VY * 8u + pair % 8u) * VY + piece % VY) * 8u + pair / 8u % 4u * 2u;
}

// Of a row, over the subgroups.
fn workgroup_top(row: u32) -> f32 {
    var most = MASKED;
    for (var s = 0u; s < SUBGROUPS; s++) { most = max(most, tops[s * R + row]); }
    return most;
}
fn workgroup_total(row: u32, top: f32) -> f32 {
    var sum = 0.0;
    for (var s = 0u; s < SUBGROUPS; s++) { sum += totals[s * R + row] * exp2(tops[s * R + row] - top); }
    return sum;
}

// What a value is multiplied by beside its code.
fn v_weight(weight: f32, scale: f32, unit: f32) -> f32 {
#if QUANTISED
    return weight * (scale * unit);
#else
    return weight;
#endif
}

// Over the lanes that have the same rows of scores.
fn keys_sum(x: f32) -> f32 {
    let two = x + subgroupShuffleXor(x, 4u);
    let four = two + subgroupShuffleXor(two, 8u);
    return four + subgroupShuffleXor(four, 16u);
}
fn keys_most(x: f32) -> f32 {
    let two = max(x, subgroupShuffleXor(x, 4u));
    let four = max(two, subgroupShuffleXor(two, 8u));
    return max(four, subgroupShuffleXor(four, 16u));
}

// The row of the cache where the eight keys from `key` on start, as they share a block.
fn row_of_eight(key: u32, sequence: u32, head_row: u32) -> u32 {
#if PAGED
    let block = key / params.block;
    // Without a table there is one block.
    var known = sequence;
    if params.table != 0u { known = min(table[sequence * params.table + 1u + block], params.blocks - 1u); }
    return known * params.block_rows + head_row + (key - block * params.block) * params.key_rows;
#else
    return sequence * params.block_rows + head_row + key * params.key_rows;
#endif
}

// One of the eight. Those of a quantised cache follow each other, and all exist, as blocks hold a multiple of eight; of others, keys past
// the last repeat it.
fn row_of_key(row: u32, nth: u32, more: u32) -> u32 {
#if QUANTISED
    return row + nth;
#else
    return row + min(nth, more) * params.key_rows;
#endif
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let index = group_index(place.group, place.groups);
    let group = min(index, params.groups - 1u);
    let subgroup = lane.subgroup;
    let i = lane.subgroup_lane / 4u;
    let j = lane.subgroup_lane % 4u;
    let ratio = params.heads / params.kv_heads;
    let work = work_of(group, R, 8u, SIDE);
    let first = work.first;
    let split = work.split;
    let head = work.head;
    let sequence = work.sequence;
    let len = work.len;
    let begin = work.begin;
    let end = work.end;
    let head_row = head * params.head_rows;
    let last = max(end, 1u) - 1u;
    let steps = (max(end, begin) - begin + STEP - 1u) / STEP;
#for x 2
    let sees_{x} = visible(first + 2u * j + {x}u, len);
    let until_{x} = min(sees_{x}.y, end);
    var top_{x} = MASKED;
    var total_{x} = 0.0; // of this lane's keys only
    // QUANTISED: what the weights for V, with its scales, are multiplied by, and the logarithm that it undoes.
    var v_unit_{x} = 1.0;
    var v_log_{x} = 0.0;
#endfor

#for c KC
#for y KY
    let q_{c}_{y} = q[query_at(first + i, ({c}u * 4u + j) * KY + {y}u, sequence, head)];
#endfor
#endfor
    // Each lane looks up the row of one of this subgroup's next 32 eights.
    let last_eight = last & ~7u;
    var key = begin + subgroup * SIDE;
    let own_eight = key + lane.subgroup_lane / 2u * STEP + lane.subgroup_lane % 2u * 8u;
    var looked_up = row_of_eight(min(own_eight, last_eight), sequence, head_row);
#for g 2
    var row_{g} = subgroupShuffle(looked_up, {g}u);
    var more_{g} = min(last - min(key + {g}u * 8u, last_eight), 7u);
#for c KC
    var k_{g}_{c} = k[row_of_key(row_{g}, i, more_{g}) * K_LOADS + {c}u * 4u + j];
#endfor
#if QUANTISED
    var scale_{g} = scales[row_{g} + i];
#endif
#endfor
    let zero = vec4<f16>();
#if OFFSET
    var q_sum = 0.0;
#endif
#for c KC
#for y KY
    let eight_q_{c}_{y} = eight_of_query(q_{c}_{y});
    let q_lo_{c}_{y} = fragment_b(eight_q_{c}_{y}.lo, zero);
    let q_hi_{c}_{y} = fragment_b(eight_q_{c}_{y}.hi, zero);
#if OFFSET
    q_sum += dot(vec4<f32>(eight_q_{c}_{y}.lo), vec4(1.0)) + dot(vec4<f32>(eight_q_{c}_{y}.hi), vec4(1.0));
#endif
#endfor
#endfor
#if OFFSET
    q_sum += subgroupShuffleXor(q_sum, 1u);
    q_sum += subgroupShuffleXor(q_sum, 2u);
#for x 2
    let q_offset_{x} = CODE_OFFSET / CODE_UNIT * subgroupShuffle(q_sum, 8u * j + {x}u * 4u);
#endfor
#endif
#for c VC
#for y VY
#for n 4
    var sum_{c}_{y}_{n} = MatC();
#endfor
#endfor
#endfor
    // From where a lane's weights come, and in which half.
    let weight_lane = 8u * j + i / 2u;
    let weight_shift = i % 2u * 16u;

    for (var step = 0u; step < steps; step++) {
        // V of this step, for behind the scores.
#for g 2
#for e 2
#for c VC
        let v_{g}{e}_{c} = v[row_of_key(row_{g}, 2u * j + {e}u, more_{g}) * V_LOADS + {c}u * 8u + i];
#endfor
#endfor
#endfor
        if step >= params.kv_len { // never, as a step has several keys
            tops[0] = used(0u
#for g 2
#for e 2
#for c VC
#if BITS == 4
                ^ v_piece(v_{g}{e}_{c}, 0u)
#else
                ^ v_{g}{e}_{c}.x
#endif
#endfor
#endfor
#endfor
            );
        }
        var s_lo = MatC();
        var s_hi = MatC();
#for c KC
#for y KY
        {
            let near = eight_of(k_piece(k_0_{c}, {y}u));
            let far = eight_of(k_piece(k_1_{c}, {y}u));
            s_lo = coopMultiplyAdd(fragment_a(near.lo, far.lo), q_lo_{c}_{y}, s_lo);
            s_hi = coopMultiplyAdd(fragment_a(near.hi, far.hi), q_hi_{c}_{y}, s_hi);
        }
#endfor
#endfor
#for g 2
#if QUANTISED
        let scales_{g} = unpack2x16float(scale_{g});
        // What lies behind the last key may be anything, NaN too.
        let v_scale_{g} = select(LEAST_SCALE, scales_{g}.y, scales_{g}.y > LEAST_SCALE);
#else
        let v_scale_{g} = 1.0;
#endif
        let own_key_{g} = key + {g}u * 8u + i;
#endfor
        // The next step's keys. Past the last key they are those of the last eight.
        key += STEP;
        if (step + 1u) % 16u == 0u {
            looked_up = row_of_eight(min(own_eight + (step + 1u) * STEP, last_eight), sequence, head_row);
        }
#for g 2
        row_{g} = subgroupShuffle(looked_up, (step + 1u) % 16u * 2u + {g}u);
        more_{g} = min(last - min(key + {g}u * 8u, last_eight), 7u);
#endfor
#if !QUANTISED
        // Their K, before the weights: what is loaded lasts longer than the work.
#for g 2
#for c KC
        k_{g}_{c} = k[row_of_key(row_{g}, i, more_{g}) * K_LOADS + {c}u * 4u + j];
#endfor
#endfor
        if step >= params.kv_len {
            tops[0] = used(0u
#for g 2
#for c KC
                ^ k_{g}_{c}.x
#endfor
#endfor
            );
        }
#endif
        let lo = elements_of(s_lo);
        let hi = elements_of(s_hi);
#for g 2
#for x 2
        var score_{g}{x} = lo[{g} * 4 + {x}] + hi[{g} * 4 + {x}] / HIGH;
#if OFFSET
        score_{g}{x} -= q_offset_{x};
#endif
#if QUANTISED
        score_{g}{x} *= scales_{g}.x * (params.scale * CODE_UNIT);
#else
        score_{g}{x} *= params.scale;
#endif
        // Keys of another split are past the end of this one. While all is masked the maximum is the sentinel itself: the mask decides,
        // not the difference.
        let seen_{g}{x} = own_key_{g} >= sees_{x}.x && own_key_{g} < until_{x};
        var weight_{g}{x} = select(0.0, exp2(score_{g}{x} - top_{x}), seen_{g}{x});
        var v_weight_{g}{x} = v_weight(weight_{g}{x}, v_scale_{g}, v_unit_{x});
#endfor
#endfor
        // A maximum that lags is as good: halves hold weights up to MOST_WEIGHT, and sums are seldom scaled.
        if subgroupAny(max(max(v_weight_00, v_weight_01), max(v_weight_10, v_weight_11)) > MOST_WEIGHT) {
#for x 2
            let most_{x} = max(top_{x}, keys_most(max(
                select(MASKED, score_0{x}, seen_0{x}),
                select(MASKED, score_1{x}, seen_1{x}),
            )));
            let faded_{x} = top_{x} - most_{x};
            top_{x} = most_{x};
            total_{x} *= exp2(faded_{x});
#if QUANTISED
            // What is to be the weight 1 for V never falls, so no sum grows.
            let largest_{x} = max(faded_{x} + v_log_{x}, keys_most(max(
                select(MASKED, score_0{x} - most_{x} + log2(v_scale_0), seen_0{x}),
                select(MASKED, score_1{x} - most_{x} + log2(v_scale_1), seen_1{x}),
            )));
            let fade_{x} = exp2(faded_{x} + (v_log_{x} - largest_{x}));
            v_log_{x} = largest_{x};
            v_unit_{x} = exp2(-largest_{x});
#else
            let fade_{x} = exp2(faded_{x});
#endif
#for g 2
            weight_{g}{x} = select(0.0, exp2(score_{g}{x} - top_{x}), seen_{g}{x});
            v_weight_{g}{x} = v_weight(weight_{g}{x}, v_scale_{g}, v_unit_{x});
#endfor
#endfor
#for c VC
#for y VY
#for n 4
            {
                var e = elements_of(sum_{c}_{y}_{n});
                e[0] *= fade_0;
                e[1] *= fade_1;
                e[4] *= fade_0;
                e[5] *= fade_1;
                sum_{c}_{y}_{n} = fragment_c(e);
            }
#endfor
#endfor
#endfor
        }
#for x 2
        total_{x} += weight_0{x} + weight_1{x};
#endfor
#for g 2
        let word_{g} = pack2x16float(vec2(v_weight_{g}0, v_weight_{g}1));
        let even_{g} = subgroupShuffle(word_{g}, weight_lane) >> weight_shift;
        let odd_{g} = subgroupShuffle(word_{g}, weight_lane + 4u) >> weight_shift;
        let pair_{g} = (even_{g} & 0xffffu) | (odd_{g} << 16u);
#endfor
        let weights = fragment_b(four_halves(pair_0, pair_1), zero);
#for c VC
#for y VY
        let crossed_{c}_{y} = cross_keys(v_piece(v_00_{c}, {y}u), v_piece(v_01_{c}, {y}u), v_piece(v_10_{c}, {y}u), v_piece(v_11_{c}, {y}u));
#endfor
#endfor
#if QUANTISED
        // Their K behind V: whoever waits for one load of a loop waits for all that are under way.
#for g 2
#for c KC
        k_{g}_{c} = k[row_of_key(row_{g}, i, more_{g}) * K_LOADS + {c}u * 4u + j];
#endfor
        scale_{g} = scales[row_{g} + i];
#endfor
#endif
#for c VC
#for y VY
#for n 4
        {
            let columns = columns_of(crossed_{c}_{y}, {n}u);
            sum_{c}_{y}_{n} = coopMultiplyAdd(fragment_a(columns.lo, columns.hi), weights, sum_{c}_{y}_{n});
        }
#endfor
#endfor
#endfor
    }

    // The workgroup's maximum and total of each row, then its sums, of four rows at a time.
#for x 2
    let place_{x} = subgroup * R + 2u * j + {x}u;
    let sum_total_{x} = keys_sum(total_{x});
    if i == 0u {
        tops[place_{x}] = top_{x};
        totals[place_{x}] = sum_total_{x};
    }
#endfor
    workgroupBarrier();
#for x 2
    let factor_{x} = SUM_UNIT * exp2(top_{x} - workgroup_top(2u * j + {x}u) + v_log_{x});
#endfor
    let counts = index < params.groups;
    let rows = min(params.sq * ratio - first, R);
    let at_0 = (sequence * params.sq) * params.heads + head * ratio;
#if JOINED
    let own = group * PART;
    if lane.thread < R && counts {
        let top = workgroup_top(lane.thread);
        workspace.parts[own + lane.thread] = vec2(top, workgroup_total(lane.thread, top));
    }
#endif
    for (var four = 0u; four < rows; four += 4u) {
        workgroupBarrier();
#for c VC
#for y VY
#for n 4
        {
            let e = elements_of(sum_{c}_{y}_{n});
#for x 2
            if j / 2u == four / 4u {
                let row = subgroup * 4u + j % 2u * 2u + {x}u;
                pool[row * PAIRS + (({c}u * VY + {y}u) * 4u + {n}u) * 8u + i] = vec2(e[{x}], e[4 + {x}] / HIGH) * factor_{x};
            }
#endfor
        }
#endfor
#endfor
#endfor
        workgroupBarrier();
        for (var at = lane.thread; at < 4u * PAIRS && counts; at += THREADS) {
            var sum = vec2<f32>();
            for (var s = 0u; s < SUBGROUPS; s++) { sum += pool[s * 4u * PAIRS + at]; }
            let row = four + at / PAIRS;
#if JOINED
            workspace.parts[own + R + row * PAIRS + at % PAIRS] = sum;
#else
            let top = workgroup_top(row);
            store(first + row, column_of(at % PAIRS), split, at_0, sum, top, workgroup_total(row, top));
#endif
        }
    }
#if JOINED
    let tile = group % params.tiles;
    let pair = group / (params.tiles * params.splits);
    if !is_last(lane.thread, tile + params.tiles * pair, counts) { return; }
    let first_part = (tile + pair * params.tiles * params.splits) * PART;
    for (var four = 0u; four < rows; four += 4u) { merge(first_part, four, rows, first, at_0, lane.thread); }
#endif
}

// Attention of few queries over many keys (flash-decoding): a workgroup takes one split of the keys for up to R folded rows
// (queries × query heads of one KV head), so that K and V are read once and never staged. A team of TL lanes holds one row
// of K: each lane C loads of Y pieces of eight elements. A team walks U keys at a time with an online softmax of its own, in
// registers: partial scores are folded over the lanes so that each ends with the score of one key and FW rows; probabilities
// are handed back; V is added. With subgroups the exchange is shuffles (no barrier in the loop), otherwise workgroup memory.
// The next keys are in flight meanwhile; of codes (AHEAD) also the next values, and DEEP loads those after the next: a row of
// them is short, and what a compute unit waits for must be under way. BYTES multiplies codes of K as bytes (decode_bytes.wgsl).
// Teams are merged at the end. With one split the result is stored; with more, unnormalised sums, then row maxima (log2) and
// totals, for the merge.
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/kinds.wgsl"
//!include "common/decode_params.wgsl"
//!include "common/kv_decode.wgsl"
//!include "common/kv_pairs.wgsl"
//!include "common/decode_query.wgsl"
//!include "common/decode_team.wgsl"
#if BYTES
//!include "common/decode_bytes.wgsl"
#endif
//!include "common/decode_walk.wgsl"
//!include "common/decode_store.wgsl"
#if EXTRA
//!include "common/decode_mask.wgsl"
#endif

@group(0) @binding(0) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> k: array<Load>;
@group(0) @binding(2) var<storage, read> v: array<Load>;
@group(0) @binding(3) var<storage, read> scales: array<u32>; // QUANTISED: of K and V, f16, per row
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<u32>;
@group(0) @binding(7) var<storage, read_write> workspace: array<f32>;

const THREADS = 128u;
const TEAMS = THREADS / TL;
const STEP = U * TEAMS; // keys of a step of the workgroup
const SHARE = TL / U;   // lanes that end with the scores of one key
const MASKED = -1e30;
const HEADROOM = 8.0;
const LOG2_E = 1.4426950408889634;

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let group = group_index(place.group, place.groups);
    if group >= params.groups { return; }
#if SUBGROUP
    // Subgroups are full: their sizes are powers of two that divide THREADS, and none is narrower than a team.
    let id = lane.subgroup * lane.subgroup_size + lane.subgroup_lane;
    let t = id % TL;
    let seat = Seat(id, t, lane.subgroup_lane - t, t / SHARE);
#else
    let id = lane.thread;
    let t = id % TL;
    let seat = Seat(id, t, id - t, t / SHARE);
#endif
    let team = id / TL;
    let ratio = params.heads / params.kv_heads;
    let work = work_of(group, R, 4u, 4u);
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

    // All loads of Q, then what becomes of it: a load that waits for another one is felt, with so few keys for each workgroup.
    let q_words = select(2u, 1u, params.kind != 0u);
#for h H
    let q_row_{h} = first + {h}u * W;
#for c C
#for y Y
#for w W
    let q_at_{h}_{c}_{y}_{w} = query_at(q_row_{h} + {w}u, ({c}u * TL + t) * Y + {y}u, sequence, head) * q_words;
    let q_lo_{h}_{c}_{y}_{w} = q[q_at_{h}_{c}_{y}_{w}];
    let q_hi_{h}_{c}_{y}_{w} = q[q_at_{h}_{c}_{y}_{w} + q_words - 1u];
#endfor
#endfor
#endfor
#endfor
#for h H
    let f_row_{h} = q_row_{h} + (t % SHARE) / (SHARE * FW / W) * FW;
#for i FW
    let sees_{h}_{i} = visible(f_row_{h} + {i}u, len);
#endfor
#if FW == 4
    let low_{h} = vec4(sees_{h}_0.x, sees_{h}_1.x, sees_{h}_2.x, sees_{h}_3.x);
    let high_{h} = vec4(sees_{h}_0.y, sees_{h}_1.y, sees_{h}_2.y, sees_{h}_3.y);
#elif FW == 2
    let low_{h} = vec2(sees_{h}_0.x, sees_{h}_1.x);
    let high_{h} = vec2(sees_{h}_0.y, sees_{h}_1.y);
#else
    let low_{h} = sees_{h}_0.x;
    let high_{h} = sees_{h}_0.y;
#endif
    var top_{h} = F(MASKED);
    var total_{h} = F(); // of this lane's keys only
    var shift_{h} = F();
#for c C
#for y Y
#for w W
    let q_{h}_{c}_{y}_{w} = query(q_lo_{h}_{c}_{y}_{w}, q_hi_{h}_{c}_{y}_{w}, ({c}u * TL + t) * Y + {y}u);
#endfor
#for x 2
#for e 4
    var acc_{h}_{c}_{y}_{x}_{e} = RV();
#endfor
#endfor
#endfor
#endfor
#if BYTES
#for w W
    var most_{h}_{w} = 1e-33;
    var start_{h}_{w} = 0;
#for c C
#for y Y
    most_{h}_{w} = max(most_{h}_{w}, most_of(q_{h}_{c}_{y}_{w}));
#endfor
#endfor
#endfor
#if W == 4
    let unit_{h} = team_max(RV(most_{h}_0, most_{h}_1, most_{h}_2, most_{h}_3)) / MOST;
#else
    let unit_{h} = team_max(most_{h}_0) / MOST;
#endif
    let f_unit_{h} = own_rows(unit_{h}, seat);
#for c C
#for y Y
#for w W
    let d_{h}_{c}_{y}_{w} = digits(q_{h}_{c}_{y}_{w}, 1.0 / row_of(unit_{h}, {w}u));
    start_{h}_{w} -= BYTE_OFFSET * sum_of_digits(d_{h}_{c}_{y}_{w});
#endfor
#endfor
#endfor
#else
    var q_sum_{h} = RV();
#for c C
#for y Y
#for x 2
#for e 4
#if W == 4
    let q_{h}_{c}_{y}_{x}_{e} = RV(q_{h}_{c}_{y}_0.part{x}[{e}], q_{h}_{c}_{y}_1.part{x}[{e}],
        q_{h}_{c}_{y}_2.part{x}[{e}], q_{h}_{c}_{y}_3.part{x}[{e}]);
#else
    let q_{h}_{c}_{y}_{x}_{e} = q_{h}_{c}_{y}_0.part{x}[{e}];
#endif
    q_sum_{h} += q_{h}_{c}_{y}_{x}_{e};
#endfor
#endfor
#endfor
#endfor
#if OFFSET
    let q_offset_{h} = CODE_OFFSET / CODE_UNIT * team_sum(q_sum_{h}, seat);
#endif
#endif
#endfor
    let k_loads = params.d8 / Y;
    let v_loads = params.e8 / Y;
#for c C
    let k_piece_{c} = min({c}u * TL + t, k_loads - 1u);
    let v_piece_{c} = min({c}u * TL + t, v_loads - 1u);
#for u U
    var k_{u}_{c}: Load;
#if AHEAD
    var v_{u}_{c}: Load;
#endif
#if DEEP
    var k_then_{u}_{c}: Load;
    var v_then_{u}_{c}: Load;
#endif
#endfor
#endfor
    var key = begin + team * U; // the team's first of U
    var four = Four(0u, 0u);
    var next: Walk;
    var scale_word = 0u; // of K and V
    var scale_word_then = 0u;
    let stride = vec2(STEP / params.block, STEP % params.block);
    if steps > 0u {
        next = walk_from(min(key, last & ~(U - 1u)), sequence);
        four = four_at(next, last, sequence, head_row);
        next = walk_on(next, last, stride, sequence);
#for u U
#for c C
        k_{u}_{c} = k[row_of_key(four, {u}u) * k_loads + k_piece_{c}];
#endfor
#endfor
#if QUANTISED
        scale_word = scales[four.row + min(seat.own, four.more)];
#endif
#if AHEAD
#for u U
#for c C
        v_{u}_{c} = v[row_of_key(four, {u}u) * v_loads + v_piece_{c}];
#endfor
#endfor
#endif
#if DEEP
        four = four_at(next, last, sequence, head_row);
        next = walk_on(next, last, stride, sequence);
#for u U
#for c C
        k_then_{u}_{c} = k[row_of_key(four, {u}u) * k_loads + k_piece_{c}];
#endfor
#endfor
        scale_word_then = scales[four.row + min(seat.own, four.more)];
#for u U
#for c C
        v_then_{u}_{c} = v[row_of_key(four, {u}u) * v_loads + v_piece_{c}];
#endfor
#endfor
#endif
    }

    for (var step = 0u; step < steps; step++) {
#if !AHEAD
#for u U
#for c C
        let v_{u}_{c} = v[row_of_key(four, {u}u) * v_loads + v_piece_{c}];
#endfor
#endfor
#endif
#if QUANTISED
        let pair_of_scales = unpack2x16float(scale_word);
#endif
        // Scores of this step, and the load of the next one's keys.
#for u U
#if BYTES
#for h H
#for w W
        var low_{u}_{h}_{w} = start_{h}_{w};
        var high_{u}_{h}_{w} = 0;
#endfor
#endfor
#for c C
#for y Y
        let b_{u}_{c}_{y} = bytes(part(k_{u}_{c}, {y}u));
#for i 2
#for h H
#for w W
        low_{u}_{h}_{w} += dot4I8Packed(b_{u}_{c}_{y}[{i}], d_{h}_{c}_{y}_{w}.low[{i}]);
        high_{u}_{h}_{w} += dot4I8Packed(b_{u}_{c}_{y}[{i}], d_{h}_{c}_{y}_{w}.high[{i}]);
#endfor
#endfor
#endfor
#endfor
#endfor
#for h H
#if W == 4
        let s_{u}_{h} = vec4(low_{u}_{h}_0, low_{u}_{h}_1, low_{u}_{h}_2, low_{u}_{h}_3)
            + (vec4(high_{u}_{h}_0, high_{u}_{h}_1, high_{u}_{h}_2, high_{u}_{h}_3) << vec4(8u));
#else
        let s_{u}_{h} = low_{u}_{h}_0 + (high_{u}_{h}_0 << 8u);
#endif
#endfor
#else
#for h H
        var s_{u}_{h} = RV();
#endfor
#for c C
#for y Y
        let k8_{u}_{c}_{y} = decode(part(k_{u}_{c}, {y}u));
#for x 2
#for e 4
#for h H
        s_{u}_{h} = fma(q_{h}_{c}_{y}_{x}_{e}, RV(k8_{u}_{c}_{y}.part{x}[{e}]), s_{u}_{h});
#endfor
#endfor
#endfor
#endfor
#endfor
#endif
#endfor
        four = four_at(next, last, sequence, head_row);
        next = walk_on(next, last, stride, sequence);
#if DEEP
#for u U
#for c C
        k_{u}_{c} = k_then_{u}_{c};
#endfor
#endfor
        scale_word = scale_word_then;
#for u U
#for c C
        k_then_{u}_{c} = k[row_of_key(four, {u}u) * k_loads + k_piece_{c}];
#endfor
#endfor
        scale_word_then = scales[four.row + min(seat.own, four.more)];
#else
#for u U
#for c C
        k_{u}_{c} = k[row_of_key(four, {u}u) * k_loads + k_piece_{c}];
#endfor
#endfor
#if QUANTISED
        scale_word = scales[four.row + min(seat.own, four.more)];
#endif
#endif
#for h H
#if U == 4
        let sums_{h} = team_sums(s_0_{h}, s_1_{h}, s_2_{h}, s_3_{h}, seat);
#else
        let sums_{h} = team_sums(s_0_{h}, s_1_{h}, seat);
#endif
#if BYTES
        var f_{h} = F(sums_{h}) * (pair_of_scales.x * f_unit_{h});
#else
        var f_{h} = sums_{h};
#if OFFSET
        f_{h} -= q_offset_{h};
#endif
#if QUANTISED
        f_{h} *= pair_of_scales.x * CODE_UNIT;
#endif
#endif
#if EXTRA
        if params.soft_cap > 0.0 {
            // Past ±10 tanh is ±1 in f32, and some implementations overflow.
            f_{h} = params.soft_cap * tanh(clamp(f_{h} / params.soft_cap, F(-10.0), F(10.0)));
        }
        if params.bias == 1u { f_{h} += biases(f_row_{h}, min(key + seat.own, last), sequence, head); }
#endif
        // Keys of another split are past the end of this one.
        let own_key_{h} = FU(key + seat.own);
        var seen_{h} = (own_key_{h} >= low_{h}) & (own_key_{h} < min(high_{h}, FU(end)));
#if EXTRA
        seen_{h} = tree_rows(seen_{h}, f_row_{h}, key + seat.own, len, sequence);
#endif
#if SUBGROUP
        // A maximum that lags is as good in f32: weights up to 2^HEADROOM lose nothing, and sums are seldom scaled.
        if subgroupAny(any(select(F(MASKED), f_{h}, seen_{h}) > top_{h} + HEADROOM)) {
#endif
            let most_{h} = max(top_{h}, keys_max(select(F(MASKED), f_{h}, seen_{h}), seat));
            let fade_{h} = exp2(top_{h} - most_{h});
            top_{h} = most_{h};
            total_{h} *= fade_{h};
#if OFFSET
            shift_{h} *= fade_{h};
#endif
            publish(fade_{h}, seat);
            let fades_{h} = take(fade_{h}, 0u, seat);
#for c C
#for y Y
#for x 2
#for e 4
            acc_{h}_{c}_{y}_{x}_{e} *= fades_{h};
#endfor
#endfor
#endfor
#endfor
#if SUBGROUP
        }
#endif
        // While all is masked the maximum is the sentinel itself: the mask decides, not the difference.
        var p_{h} = select(F(), exp2(f_{h} - top_{h}), seen_{h});
        total_{h} += p_{h};
#if QUANTISED
        p_{h} *= pair_of_scales.y * CODE_UNIT;
#endif
#if OFFSET
        shift_{h} += p_{h};
#endif
        publish(p_{h}, seat);
#for u U
        let p_{u}_{h} = take(p_{h}, {u}u, seat);
#endfor
#endfor
#for u U
#for c C
#for y Y
        let v8_{u}_{c}_{y} = decode(part(v_{u}_{c}, {y}u));
#for x 2
#for e 4
#for h H
        acc_{h}_{c}_{y}_{x}_{e} = fma(p_{u}_{h}, RV(v8_{u}_{c}_{y}.part{x}[{e}]), acc_{h}_{c}_{y}_{x}_{e});
#endfor
#endfor
#endfor
#endfor
#endfor
#endfor
#if DEEP
#for u U
#for c C
        v_{u}_{c} = v_then_{u}_{c};
#endfor
#endfor
#for u U
#for c C
        v_then_{u}_{c} = v[row_of_key(four, {u}u) * v_loads + v_piece_{c}];
#endfor
#endfor
#elif AHEAD
#for u U
#for c C
        v_{u}_{c} = v[row_of_key(four, {u}u) * v_loads + v_piece_{c}];
#endfor
#endfor
#endif
        key += STEP;
    }

    // The workgroup's maximum and total of each row, then its sums: four columns of every piece at a time.
    let at_0 = (sequence * params.sq) * params.heads + head * ratio;
    let columns = params.e8 * 8u;
#for h H
    let sum_{h} = keys_sum(total_{h}, seat);
    publish(top_{h}, seat);
    let team_top_{h} = take(top_{h}, 0u, seat);
    publish(sum_{h}, seat);
    let team_total_{h} = take(sum_{h}, 0u, seat);
#if OFFSET
    let shift_sum_{h} = keys_sum(shift_{h}, seat);
    publish(shift_sum_{h}, seat);
    let offset_{h} = CODE_OFFSET / CODE_UNIT * take(shift_sum_{h}, 0u, seat);
#endif
    if t == 0u { tops[{h}u * TEAMS + team] = team_top_{h}; }
#endfor
    workgroupBarrier();
#for h H
    var all_top_{h} = RV(MASKED);
    for (var i = 0u; i < TEAMS; i++) { all_top_{h} = max(all_top_{h}, tops[{h}u * TEAMS + i]); }
    let weight_{h} = exp2(team_top_{h} - all_top_{h});
    if t == 0u { totals[{h}u * TEAMS + team] = team_total_{h} * weight_{h}; }
#endfor
    let w = id % W;
    let two = id / W; // columns of four in each piece
#for h H
#for c C
#for y Y
#for x 2
    workgroupBarrier();
#for e 4
#if OFFSET
    pool[4u * id + {e}u] = (acc_{h}_{c}_{y}_{x}_{e} - offset_{h}) * weight_{h};
#else
    pool[4u * id + {e}u] = acc_{h}_{c}_{y}_{x}_{e} * weight_{h};
#endif
#endfor
    workgroupBarrier();
    let column_{h}_{c}_{y}_{x} = (({c}u * TL + two / 2u) * Y + {y}u) * 8u + {x}u * 4u + two % 2u * 2u;
    if two < 2u * TL && column_{h}_{c}_{y}_{x} < columns {
        var sum = vec2<f32>();
        var total = 0.0;
        for (var i = 0u; i < TEAMS; i++) {
            sum += vec2(of_pool(i * 4u * TL + 2u * two, w), of_pool(i * 4u * TL + 2u * two + 1u, w));
            total += of_totals({h}u * TEAMS + i, w);
        }
        store(first + {h}u * W + w, column_{h}_{c}_{y}_{x}, split, at_0, sum, row_of(all_top_{h}, w), total);
    }
#endfor
#endfor
#endfor
#endfor
}

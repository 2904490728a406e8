// Attention of few queries over many keys (flash-decoding): a workgroup takes one split of the keys for up to R folded rows
// (queries × query heads of one KV head), so that K and V are read once and never staged. A team of TL lanes holds one row
// of K: each lane C pieces of eight elements. A team walks four keys at a time with an online softmax of its own, in
// registers: the next K and this V are in flight; partial scores are folded over the lanes so that each ends with the
// score of one key and FW rows; probabilities are handed back; V is added. Rows ride in the components of vectors (RV).
// With subgroups the exchange is shuffles (no barrier in the loop), otherwise workgroup memory. Teams are merged at the end.
// With one split the result is stored; with more, unnormalised sums, then row maxima (log2) and totals, for the merge.
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/kinds.wgsl"
//!include "common/kv_decode.wgsl"
//!include "common/decode_query.wgsl"
#if PAGED
//!include "common/decode_mask.wgsl"
#endif

struct Params {
    sq: u32, kv_len: u32, heads: u32, kv_heads: u32, // kv_len: of the longest sequence (PAGED)
    d8: u32,           // pieces of a row of Q and K
    e8: u32,           // pieces of a row of V
    block_rows: u32,   // rows of the cache from one block (PAGED) or sequence to the next,
    head_rows: u32,    // from one head to the next,
    key_rows: u32,     // from one key to the next
    block: u32,        // PAGED: keys of a block
    table: u32,        // PAGED: words of a sequence in the table: its length, then its blocks; 0 for block = sequence
    tiles: u32,        // of R rows
    splits: u32,
    groups: u32,
    stats: u32,        // where the maxima and totals start in the workspace
    causal: u32,
    window: u32,       // keys that a query sees, itself included; 0 for all
    kind: u32,         // of Q and out: 0 f32, 1 f16, 2 bf16
    scale: f32,        // with the factor log2 e
    soft_cap: f32,     // likewise; 0 for none
    blocks: u32,       // PAGED: of the cache
    bias: u32, bias_b: u32, bias_h: u32, bias_q: u32, // PAGED: 1 if there is one, steps by sequence, head, query; or a tree
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> k: array<Raw>;
@group(0) @binding(2) var<storage, read> v: array<Raw>;
@group(0) @binding(3) var<storage, read> scales: array<u32>; // QUANTISED: of K and V, f16, per row
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<u32>;
@group(0) @binding(7) var<storage, read_write> workspace: array<f32>;

const THREADS = 128u;
const TEAMS = THREADS / TL;
const STEP = 4u * TEAMS;        // keys of a step of the workgroup
const QUARTER = TL / 4u;        // lanes that end with the scores of one key
const MASKED = -1e30;
const HEADROOM = 8.0;
const LOG2_E = 1.4426950408889634;
#if W == 4
alias RV = vec4<f32>;
fn row_of(value: RV, i: u32) -> f32 { return value[i]; }
#else
alias RV = f32;
fn row_of(value: RV, i: u32) -> f32 { return value; }
#endif
// What a lane has of a key: FW of its W rows.
#if FW == 4
alias F = vec4<f32>;
alias FU = vec4<u32>;
#elif FW == 2
alias F = vec2<f32>;
alias FU = vec2<u32>;
#else
alias F = f32;
alias FU = u32;
#endif
var<workgroup> pool: array<RV, 4u * THREADS>;
var<workgroup> tops: array<RV, TEAMS * H>;
var<workgroup> totals: array<RV, TEAMS * H>;

struct Seat {
    id: u32,    // in the workgroup
    t: u32,     // in the team
    base: u32,  // the team's first lane: in the subgroup, or in the workgroup
    own: u32,   // the key of four whose scores the lane ends with
}

#if SUBGROUP
// Sums over the team. Lanes halve what they hold at each exchange: keys first, then rows, then plain sums.
fn team_sums(s0: RV, s1: RV, s2: RV, s3: RV, seat: Seat) -> F {
    let far = (seat.t & (TL / 2u)) != 0u;
    let a0 = select(s0, s2, far) + subgroupShuffleXor(select(s2, s0, far), TL / 2u);
    let a1 = select(s1, s3, far) + subgroupShuffleXor(select(s3, s1, far), TL / 2u);
    let near = (seat.t & QUARTER) != 0u;
    let b = select(a0, a1, near) + subgroupShuffleXor(select(a1, a0, near), QUARTER);
#if FOLD == 1
    var f = b;
#else
    let third = (seat.t & (QUARTER / 2u)) != 0u;
    let c = select(b.xy, b.zw, third) + subgroupShuffleXor(select(b.zw, b.xy, third), QUARTER / 2u);
#if FOLD == 2
    var f = c;
#else
    let fourth = (seat.t & (QUARTER / 4u)) != 0u;
    var f = select(c.x, c.y, fourth) + subgroupShuffleXor(select(c.y, c.x, fourth), QUARTER / 4u);
#endif
#endif
#for i REST
    f += subgroupShuffleXor(f, 1u << {i}u);
#endfor
    return f;
}

fn keys_max(f: F, seat: Seat) -> F {
    let most = max(f, subgroupShuffleXor(f, TL / 2u));
    return max(most, subgroupShuffleXor(most, QUARTER));
}

fn keys_sum(f: F, seat: Seat) -> F {
    let sum = f + subgroupShuffleXor(f, TL / 2u);
    return sum + subgroupShuffleXor(sum, QUARTER);
}

fn publish(f: F, seat: Seat) {}

// All rows of one key, from the lanes that hold them.
fn take(f: F, key: u32, seat: Seat) -> RV {
    let from_lane = seat.base + key * QUARTER;
#if FOLD == 1
    return subgroupShuffle(f, from_lane);
#elif FOLD == 2
    return RV(subgroupShuffle(f, from_lane), subgroupShuffle(f, from_lane + QUARTER / 2u));
#else
    return RV(
        subgroupShuffle(f, from_lane), subgroupShuffle(f, from_lane + QUARTER / 4u),
        subgroupShuffle(f, from_lane + QUARTER / 2u), subgroupShuffle(f, from_lane + QUARTER / 4u * 3u),
    );
#endif
}
#else
fn publish(f: F, seat: Seat) {
    workgroupBarrier();
    pool[seat.id] = f;
    workgroupBarrier();
}
fn take(f: F, key: u32, seat: Seat) -> RV { return pool[seat.base + key * QUARTER]; }

fn team_sums(s0: RV, s1: RV, s2: RV, s3: RV, seat: Seat) -> F {
    workgroupBarrier();
    pool[seat.id] = s0;
    pool[THREADS + seat.id] = s1;
    pool[2u * THREADS + seat.id] = s2;
    pool[3u * THREADS + seat.id] = s3;
    workgroupBarrier();
    var sum = F();
    // In the same order for every key, so that equal keys have equal scores.
    for (var i = 0u; i < TL; i++) { sum += pool[seat.own * THREADS + seat.base + i]; }
    return sum;
}

fn keys_max(f: F, seat: Seat) -> F {
    publish(f, seat);
    return max(max(take(f, 0u, seat), take(f, 1u, seat)), max(take(f, 2u, seat), take(f, 3u, seat)));
}

fn keys_sum(f: F, seat: Seat) -> F {
    publish(f, seat);
    return take(f, 0u, seat) + take(f, 1u, seat) + (take(f, 2u, seat) + take(f, 3u, seat));
}
#endif

// The keys from x to y − 1 that a folded row sees, of `len`.
fn visible(row: u32, len: u32) -> vec2<u32> {
    let ratio = params.heads / params.kv_heads;
    if row >= params.sq * ratio { return vec2<u32>(); }
    let position = i32(row / ratio + len) - i32(params.sq);
    let last = select(len, u32(clamp(position + 1, 0, i32(len))), params.causal != 0u);
    let first = select(0u, u32(max(position + 1 - i32(params.window), 0)), params.window != 0u);
    return vec2(first, last);
}

// Where four keys are: the row of the first, and how many of the others count. Keys past `last` repeat one that counts:
// what lies behind is not ours to read.
struct Four { row: u32, more: u32, }
fn locate(first_key: u32, last: u32, sequence: u32, head_row: u32) -> Four {
    let key = min(first_key, last & ~3u);
#if PAGED
    let block = key / params.block;
    var number = sequence;
    if params.table != 0u { number = min(table[sequence * params.table + 1u + block], params.blocks - 1u); }
    let row = number * params.block_rows + head_row + (key - block * params.block) * params.key_rows;
    return Four(row, min(last - key, 3u));
#else
    return Four(sequence * params.block_rows + head_row + key * params.key_rows, min(last - key, 3u));
#endif
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let group = group_index(place.group, place.groups);
    if group >= params.groups { return; }
#if SUBGROUP
    // Subgroups are full: their sizes are powers of two that divide THREADS, and none is narrower than a team.
    let id = lane.subgroup * lane.subgroup_size + lane.subgroup_lane;
    let t = id % TL;
    let seat = Seat(id, t, lane.subgroup_lane - t, t / QUARTER);
#else
    let id = lane.thread;
    let t = id % TL;
    let seat = Seat(id, t, id - t, t / QUARTER);
#endif
    let team = id / TL;
    let ratio = params.heads / params.kv_heads;
    let rows = params.sq * ratio;
    // Tiles of rows that read the same keys are neighbours in the grid.
    let first = (group % params.tiles) * R;
    let split = (group / params.tiles) % params.splits;
    let pair = group / (params.tiles * params.splits);
    let head = pair % params.kv_heads;
    let sequence = pair / params.kv_heads;
    let head_row = head * params.head_rows;
#if PAGED
    var len = params.kv_len;
    if params.table != 0u { len = min(table[sequence * params.table], len); }
#else
    let len = params.kv_len;
#endif

    // This split of what the rows see together; from a multiple of four, as four keys share a block.
    let from_key = visible(first, len).x & ~3u;
    let to_key = visible(min(first + R, rows) - 1u, len).y;
    let share = ((max(to_key, from_key) - from_key + params.splits - 1u) / params.splits + 3u) & ~3u;
    let begin = min(from_key + split * share, to_key);
    let end = min(begin + share, to_key);
    let last = max(end, 1u) - 1u;
    let steps = (max(end, begin) - begin + STEP - 1u) / STEP;

    // All loads of Q, then what becomes of it: a load that waits for another one is felt, with so few keys for each workgroup.
    let q_words = select(2u, 1u, params.kind != 0u);
#for h H
    let q_row_{h} = first + {h}u * W;
#for c C
#for w W
    let q_at_{h}_{c}_{w} = query_at(q_row_{h} + {w}u, {c}u * TL + t, sequence, head) * q_words;
    let q_lo_{h}_{c}_{w} = q[q_at_{h}_{c}_{w}];
    let q_hi_{h}_{c}_{w} = q[q_at_{h}_{c}_{w} + q_words - 1u];
#endfor
#endfor
#endfor
#for h H
    let f_row_{h} = q_row_{h} + (t % QUARTER) / (QUARTER * FW / W) * FW;
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
    var q_sum_{h} = RV();
    var shift_{h} = F();
#for c C
#for w W
    let q_{h}_{c}_{w} = query(q_lo_{h}_{c}_{w}, q_hi_{h}_{c}_{w}, {c}u * TL + t);
#endfor
#for x 2
#for e 4
#if W == 4
    let q_{h}_{c}_{x}_{e} =
        RV(q_{h}_{c}_0.part{x}[{e}], q_{h}_{c}_1.part{x}[{e}], q_{h}_{c}_2.part{x}[{e}], q_{h}_{c}_3.part{x}[{e}]);
#else
    let q_{h}_{c}_{x}_{e} = q_{h}_{c}_0.part{x}[{e}];
#endif
    q_sum_{h} += q_{h}_{c}_{x}_{e};
    var acc_{h}_{c}_{x}_{e} = RV();
#endfor
#endfor
#endfor
#if OFFSET
    let q_offset_{h} = CODE_OFFSET / CODE_UNIT * team_sums(q_sum_{h}, q_sum_{h}, q_sum_{h}, q_sum_{h}, seat);
#endif
#endfor
#for c C
    let k_piece_{c} = min({c}u * TL + t, params.d8 - 1u);
    let v_piece_{c} = min({c}u * TL + t, params.e8 - 1u);
#for u 4
    var k_{u}_{c}: Raw;
#endfor
#endfor
    var key = begin + team * 4u; // the team's first of four
    var four = Four(0u, 0u);
    if steps > 0u {
        four = locate(key, last, sequence, head_row);
#for u 4
#for c C
        k_{u}_{c} = k[(four.row + min({u}u, four.more) * params.key_rows) * params.d8 + k_piece_{c}];
#endfor
#endfor
    }

    for (var step = 0u; step < steps; step++) {
#for u 4
        let v_row_{u} = (four.row + min({u}u, four.more) * params.key_rows) * params.e8;
#for c C
        let v_{u}_{c} = v[v_row_{u} + v_piece_{c}];
#endfor
#for h H
        var s_{u}_{h} = RV();
#endfor
#endfor
#if QUANTISED
        let pair_of_scales = unpack2x16float(scales[four.row + min(seat.own, four.more) * params.key_rows]);
#endif
        // Scores of this step, and the load of the next one's keys.
#for u 4
#for c C
        let k8_{u}_{c} = decode(k_{u}_{c});
#for x 2
#for e 4
#for h H
        s_{u}_{h} = fma(q_{h}_{c}_{x}_{e}, RV(k8_{u}_{c}.part{x}[{e}]), s_{u}_{h});
#endfor
#endfor
#endfor
#endfor
#endfor
        four = locate(key + STEP, last, sequence, head_row);
#for u 4
#for c C
        k_{u}_{c} = k[(four.row + min({u}u, four.more) * params.key_rows) * params.d8 + k_piece_{c}];
#endfor
#endfor

#for h H
        var f_{h} = team_sums(s_0_{h}, s_1_{h}, s_2_{h}, s_3_{h}, seat);
#if OFFSET
        f_{h} -= q_offset_{h};
#endif
#if QUANTISED
        f_{h} *= pair_of_scales.x * CODE_UNIT;
#endif
        if params.soft_cap > 0.0 {
            // Past ±10 tanh is ±1 in f32, and some implementations overflow.
            f_{h} = params.soft_cap * tanh(clamp(f_{h} / params.soft_cap, F(-10.0), F(10.0)));
        }
#if PAGED
        if params.bias == 1u { f_{h} += biases(f_row_{h}, min(key + seat.own, last), sequence, head); }
#endif
        // Keys of another split are past the end of this one.
        let own_key_{h} = FU(key + seat.own);
        var seen_{h} = (own_key_{h} >= low_{h}) & (own_key_{h} < min(high_{h}, FU(end)));
#if PAGED
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
#for x 2
#for e 4
            acc_{h}_{c}_{x}_{e} *= fades_{h};
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
#for u 4
        let p_{u}_{h} = take(p_{h}, {u}u, seat);
#endfor
#endfor
#for u 4
#for c C
        let v8_{u}_{c} = decode(v_{u}_{c});
#for x 2
#for e 4
#for h H
        acc_{h}_{c}_{x}_{e} = fma(p_{u}_{h}, RV(v8_{u}_{c}.part{x}[{e}]), acc_{h}_{c}_{x}_{e});
#endfor
#endfor
#endfor
#endfor
#endfor
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
    if t == 0u {
        tops[{h}u * TEAMS + team] = team_top_{h};
        totals[{h}u * TEAMS + team] = team_total_{h};
    }
#endfor
    workgroupBarrier();
#for h H
    var all_top_{h} = RV(MASKED);
    for (var i = 0u; i < TEAMS; i++) { all_top_{h} = max(all_top_{h}, tops[{h}u * TEAMS + i]); }
    var all_total_{h} = RV();
    for (var i = 0u; i < TEAMS; i++) {
        all_total_{h} += exp2(tops[{h}u * TEAMS + i] - all_top_{h}) * totals[{h}u * TEAMS + i];
    }
    let weight_{h} = exp2(team_top_{h} - all_top_{h});
#for c C
#for x 2
    workgroupBarrier();
#for e 4
#if OFFSET
    pool[4u * id + {e}u] = (acc_{h}_{c}_{x}_{e} - offset_{h}) * weight_{h};
#else
    pool[4u * id + {e}u] = acc_{h}_{c}_{x}_{e} * weight_{h};
#endif
#endfor
    workgroupBarrier();
    let column_{h}_{c}_{x} = ({c}u * TL + id / 2u) * 8u + {x}u * 4u + id % 2u * 2u;
    if id < 2u * TL && column_{h}_{c}_{x} < columns {
        var x = RV();
        var y = RV();
        for (var i = 0u; i < TEAMS; i++) {
            x += pool[i * 4u * TL + 2u * id];
            y += pool[i * 4u * TL + 2u * id + 1u];
        }
        for (var i = 0u; i < W; i++) {
            store(first + {h}u * W + i, column_{h}_{c}_{x}, split, at_0, vec2(row_of(x, i), row_of(y, i)),
                row_of(all_top_{h}, i), row_of(all_total_{h}, i));
        }
    }
#endfor
#endfor
#endfor
}

// Two columns of a row; the first two also bring its maximum and total.
fn store(row: u32, column: u32, split: u32, at_0: u32, sum: vec2<f32>, top: f32, total: f32) {
    let ratio = params.heads / params.kv_heads;
    if row >= params.sq * ratio { return; }
    let at = at_0 + row / ratio * params.heads + row % ratio;
    let columns = params.e8 * 8u;
    if params.splits == 1u {
        let value = select(vec2<f32>(), sum / total, total > 0.0);
        if params.kind != 0u {
            out[(at * columns + column) / 2u] = word_of(value);
        } else {
            out[at * columns + column] = bitcast<u32>(value.x);
            out[at * columns + column + 1u] = bitcast<u32>(value.y);
        }
    } else {
        let part = at * params.splits + split;
        workspace[part * columns + column] = sum.x;
        workspace[part * columns + column + 1u] = sum.y;
        if column == 0u {
            workspace[params.stats + 2u * part] = top;
            workspace[params.stats + 2u * part + 1u] = total;
        }
    }
}

// Attention over many queries on cooperative matrices of side SIDE: f16 operands, f32 sums. A workgroup owns ROWS folded rows
// of a (sequence, KV head) and walks the keys KEYS at a time. A subgroup owns DOWN × SIDE of the rows, and with ACROSS - 1
// others on the same rows a part of the keys of S and of the columns of O: two by two reads workgroup memory least, which is
// what bounds this. Q and the sums of O stay in matrices; S and P pass through workgroup memory, as matrices have no element
// access. A step has two phases with a barrier behind each: S of its keys; then its softmax beside P·V of the keys before,
// which are independent, so that compilers interleave them. K and V are in flight from the first phase to the end of the second.
// O cannot be rescaled by rows in place, so it seldom is: weights are 2^(s − top), and top follows the maximum only when
// that passes it by HEADROOM. Weights up to 2^8 fit f16 as well as those up to 1, and a stale top cancels in out = O / total.
// Then O takes the way through workgroup memory (a product with a diagonal matrix would need O as an f16 operand).
//!include "common/prefill.wgsl"
enable wgpu_cooperative_matrix;

//!include "common/coop_matrix.wgsl"
//!include "common/attention_tiles.wgsl"

const TEAM = THREADS / ROWS; // of threads that share a row in the softmax
// Of a subgroup: its rows, its keys of S, its columns of O.
const OWN_ROWS = DOWN * SIDE;
const OWN_KEYS = KEYS / ACROSS;
const OWN_COLUMNS = WIDTH / ACROSS;
const MASKED = -1e30;
const HEADROOM = 8.0;
const LOG2E = 1.4426950408889634;
const LN2 = 0.6931471805599453;

var<workgroup> grown: array<u32, SUBGROUPS>; // whether its sums must fade

struct Halves { lo: vec4<f16>, hi: vec4<f16> }

// Columns past the row's end are zeros in Q, so those of K do not matter. A negative scale is Q's.
fn fetch_q(row: u32, column: u32) -> Halves {
    let at = row * params.d4 + min(column / 4u, params.d4 - 2u);
    let sign = select(0.0h, select(1.0h, -1.0h, params.scale < 0.0), column < params.d4 * 4u);
    return Halves(q[at] * sign, q[at + 1u] * sign);
}

#if EXTRAS != none
// Which of four keys a row sees in a tree.
fn seen_in_tree(row: u32, key: u32, len: u32, sequence: u32) -> vec4<bool> {
    if params.bias != TREE || (params.bias_h == 0u && key + 3u + params.sq < len) { return vec4(true); }
    return vec4(
        tree_sees(row, key, len, sequence), tree_sees(row, key + 1u, len, sequence),
        tree_sees(row, key + 2u, len, sequence), tree_sees(row, key + 3u, len, sequence),
    );
}
#endif

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // What decides which workgroups go on is written out: naga takes the result of a call for non-uniform, and a return that
    // depends on it would forbid the matrix operations behind it. (Loops that depend on it do not.)
    let index = group.y * groups.x + group.x;
    if index >= params.groups { return; }
    let batch = index / (params.tiles * params.kv_heads);
#if EXTRAS == varlen
    let rows = (table[2u * batch + 2u] - table[2u * batch]) * (params.heads / params.kv_heads);
#else
    let rows = params.sq * (params.heads / params.kv_heads);
#endif
    // The last tiles see the most keys under a causal mask: those of all heads start first.
    let first = (params.tiles - 1u - index / params.kv_heads % params.tiles) * ROWS;
    if first >= rows { return; }
    let head = index % params.kv_heads;
    let sequence = sequence_at(batch);
    let len = sequence.len;
    let sq = sequence.sq;
    let end = visible(min(first + ROWS, rows) - 1u, sq, len);
    let begin = first_visible(first, sq, len) / KEYS * KEYS;
    let last = max(end, 1u) - 1u;
    // Keys that all rows see.
    let all_from = first_visible(min(first + ROWS, rows) - 1u, sq, len);
    let all_to = visible(first, sq, len);

    // The row that this thread's team owns, in the tile of rows; rows past the last stand for it and are not stored.
    let row = (subgroup * (THREADS / SUBGROUPS) + lane) / TEAM;
    let part = lane % TEAM;
    let folded = min(first + row, rows - 1u);
    let at_row = query_row(folded, head, sequence);
    let high = visible(folded, sq, len);
#if EXTRAS == none
    let factor = abs(params.scale) * LOG2E;
#else
    let low = first_visible(folded, sq, len);
    let bends = params.soft_cap > 0.0 || params.bias == 1u;
    let factor = abs(params.scale) * select(LOG2E, 1.0, bends);
    let unit = select(1.0, LOG2E, bends);
    let special = bends || params.bias == TREE;
#endif
#if EXTRAS == tensors
    let at_bias = bias_start(folded, sequence.index, head);
#endif
    let own_row = subgroup / ACROSS * OWN_ROWS;
    let own_key = subgroup % ACROSS * OWN_KEYS;
    let own_column = subgroup % ACROSS * OWN_COLUMNS;

    // Q goes through the memory of the weights, Q_PER columns of matrices at a time.
    let q_row = thread / (SIDE / 8u);
    let q_piece = thread % (SIDE / 8u) * 8u;
    let q_at = query_row(min(first + q_row, rows - 1u), head, sequence);
#for g Q_GROUPS
#for u Q_PER
    let q_raw_{g}_{u} = fetch_q(q_at, ({g}u * Q_PER + {u}u) * SIDE + q_piece);
#endfor
#endfor
#for g Q_GROUPS
    workgroupBarrier();
    if q_row < ROWS {
#for u Q_PER
        put_weights(q_row * P_STRIDE + {u}u * SIDE + q_piece, q_raw_{g}_{u}.lo);
        put_weights(q_row * P_STRIDE + {u}u * SIDE + q_piece + 4u, q_raw_{g}_{u}.hi);
#endfor
    }
    workgroupBarrier();
#for u Q_PER
#for r DOWN
    let at_q_{r}_{g}_{u} = ((own_row + {r}u * SIDE) * P_STRIDE + {u}u * SIDE) / UNIT;
    let q_{r}_{g}_{u} = coopLoadT<MatA>(&weights[at_q_{r}_{g}_{u}], P_STRIDE / UNIT);
#endfor
#endfor
#endfor
#for r DOWN
#for g GROUPS
#for u PER
    var o_{r}_{g}_{u} = MatC();
#endfor
#endfor
#endfor
    var top = MASKED; // in powers of two, as all exponents here
    var total = 0.0; // of this thread's keys only
    var fade = 0.0;

    // Threads fetch a piece each of every FETCHED-th row; those to spare fetch what nobody stages.
    let fetched = select(thread / PIECES, KEYS, !EVEN && thread >= FETCHED * PIECES);
    let piece = thread % PIECES;
#if EXTRAS == paged
    let k_step = params.d4 / 2u;
    let v_step = params.e4 / 2u;
    let k_start = min(piece, k_step - 1u);
    let v_start = min(piece, v_step - 1u);
    // A thread for each key looks rows up, two steps ahead of their keys.
    let own = thread % KEYS;
    let step = vec2(KEYS / params.block, KEYS % params.block);
    let end_place = vec2(last / params.block, last % params.block);
    var place = vec2((begin + own) / params.block, (begin + own) % params.block);
    for (var key = begin + own; key < begin + 2u * KEYS; key += KEYS) {
        let found = row_in_block(select(place, end_place, key > last), head, sequence.index);
        if thread < KEYS { rows_of[key % (2u * KEYS)] = found; }
        place = next_place(place, step);
    }
    var next_row = 0u;
#else
    let k_step = params.kv_heads * (params.d4 / 2u);
    let v_step = params.kv_heads * (params.e4 / 2u);
    let k_start = (sequence.k_row + head) * (params.d4 / 2u) + min(piece, params.d4 / 2u - 1u);
    let v_start = (sequence.k_row + head) * (params.e4 / 2u) + min(piece, params.e4 / 2u - 1u);
#endif
    // The first step multiplies weights of 0 by values of 0.
    workgroupBarrier();
    for (var at = thread * 4u; at < ROWS * P_STRIDE; at += THREADS * 4u) { put_weights(at, vec4<f16>()); }
    for (var at = thread * 4u; at < KEYS * STRIDE; at += THREADS * 4u) { put_values(at, vec4<f16>()); }
    if thread < SUBGROUPS { grown[thread] = 0u; }
#for t ITEMS
    var next_k_{t}: Piece;
    var next_v_{t}: Piece;
    var v_scale_{t} = 1.0;
#endfor
    if begin < end {
#for t ITEMS
        next_k_{t} = k[piece_at(begin, {t}u * FETCHED + fetched, last, k_start, k_step)];
#endfor
    }
#for t ITEMS
    stage_key({t}u * FETCHED + fetched, piece, next_k_{t});
#endfor
    workgroupBarrier();

    // The outer loop turns when sums must fade, the inner one with each step: were this a branch in one loop, compilers would
    // copy the sums at its end.
    var key0 = begin;
    while true {
        let any_grown = 0u
#for i SUBGROUPS
            | grown[{i}]
#endfor
            ;
        if any_grown != 0u {
#for g GROUPS
#for r DOWN
#for u PER
            {
                let at = ((own_row + {r}u * SIDE) * S_STRIDE + own_key + {u}u * SIDE) / UNIT;
                coopStoreT(o_{r}_{g}_{u}, &scores[at], S_STRIDE / UNIT);
            }
#endfor
#endfor
            workgroupBarrier();
            for (var c = part * 4u; c < KEYS; c += TEAM * 4u) {
                put_scores(row * S_STRIDE + c, get_scores(row * S_STRIDE + c) * fade);
            }
            workgroupBarrier();
#for r DOWN
#for u PER
            {
                let at = ((own_row + {r}u * SIDE) * S_STRIDE + own_key + {u}u * SIDE) / UNIT;
                o_{r}_{g}_{u} = coopLoadT<MatC>(&scores[at], S_STRIDE / UNIT);
            }
#endfor
#endfor
            workgroupBarrier();
#endfor
            if thread < SUBGROUPS { grown[thread] = 0u; }
            workgroupBarrier();
        }
        if key0 >= end { break; }
        while true {
            // First phase. What fades was noted in the last step, but the load is not waited for before S is there.
            let grows = 0u
#for i SUBGROUPS
                | grown[{i}]
#endfor
                ;
#for t ITEMS
            next_v_{t} = v[piece_at(key0, {t}u * FETCHED + fetched, last, v_start, v_step)];
            next_k_{t} = k[piece_at(key0 + KEYS, {t}u * FETCHED + fetched, last, k_start, k_step)];
#endfor
#if EXTRAS == paged
            next_row = row_in_block(select(place, end_place, key0 + 2u * KEYS + own > last), head, sequence.index);
#if QUANTISED
            let next_scales = unpack2x16float(scales[rows_of[key0 % (2u * KEYS) + own]]);
#endif
#endif
#for r DOWN
#for n S_MATS
            var s_mat_{r}_{n} = MatC();
#endfor
#endfor
#for g Q_GROUPS
#for u Q_PER
#for n S_MATS
            let at_k_{n}_{g}_{u} = ((own_key + {n}u * SIDE) * STRIDE + ({g}u * Q_PER + {u}u) * SIDE) / UNIT;
            let k_{n}_{g}_{u} = coopLoad<MatB>(&keys[at_k_{n}_{g}_{u}], STRIDE / UNIT);
#for r DOWN
            s_mat_{r}_{n} = coopMultiplyAdd(q_{r}_{g}_{u}, k_{n}_{g}_{u}, s_mat_{r}_{n});
#endfor
#endfor
#endfor
#endfor
#for n P_MATS
#for r DOWN
            let at_p_{r}_{n} = ((own_row + {r}u * SIDE) * P_STRIDE + {n}u * SIDE) / UNIT;
            let p_mat_{r}_{n} = coopLoadT<MatA>(&weights[at_p_{r}_{n}], P_STRIDE / UNIT);
#endfor
#endfor
#for r DOWN
#for n S_MATS
            {
                let at = ((own_row + {r}u * SIDE) * S_STRIDE + own_key + {n}u * SIDE) / UNIT;
                coopStoreT(s_mat_{r}_{n}, &scores[at], S_STRIDE / UNIT);
            }
#endfor
#endfor
#if QUANTISED
            if thread < KEYS {
                key_scales[own] = next_scales.x;
                value_scales[own] = next_scales.y;
            }
#endif
            workgroupBarrier();
            if grows != 0u { break; } // and S once more
            // Second phase.
#if EXTRAS == paged
            if thread < KEYS { rows_of[key0 % (2u * KEYS) + own] = next_row; }
            place = next_place(place, step);
#endif
#if QUANTISED
#for t ITEMS
            v_scale_{t} = value_scales[min({t}u * FETCHED + fetched, KEYS - 1u)];
#endfor
#endif
            var times = factor;
#for i QUADS
            let at_{i} = ({i}u * TEAM + part) * 4u;
            var s_{i} = get_scores(row * S_STRIDE + at_{i});
#if QUANTISED
            s_{i} *= vec4(key_scales[at_{i}], key_scales[at_{i} + 1u], key_scales[at_{i} + 2u], key_scales[at_{i} + 3u]);
#endif
#endfor
#if EXTRAS == none
            if key0 + KEYS > all_to {
                times = 1.0;
#for i QUADS
                s_{i} = select(vec4(MASKED), s_{i} * factor, vec4(key0 + at_{i}) + vec4(0u, 1u, 2u, 3u) < vec4(high));
#endfor
            }
#else
            if special || key0 + KEYS > all_to || key0 < all_from {
                times = 1.0;
#for i QUADS
                let ids_{i} = vec4(key0 + at_{i}) + vec4(0u, 1u, 2u, 3u);
                s_{i} = bent(s_{i} * factor);
#if EXTRAS == tensors
                if params.bias == 1u {
                    let b = vec4(at_bias) + min(ids_{i}, vec4(last));
                    s_{i} += bitcast<vec4<f32>>(vec4(bias[b.x], bias[b.y], bias[b.z], bias[b.w]));
                }
#endif
                s_{i} = select(vec4(MASKED), s_{i} * unit, (ids_{i} < vec4(high)) & (ids_{i} >= vec4(low))
                    & seen_in_tree(folded, key0 + at_{i}, len, sequence.index));
#endfor
            }
#endif
#for n P_MATS
#for g GROUPS
#for u PER
            let at_v_{n}_{g}_{u} = ({n}u * SIDE * STRIDE + own_column + ({g}u * PER + {u}u) * SIDE) / UNIT;
            let v_{n}_{g}_{u} = coopLoadT<MatB>(&values[at_v_{n}_{g}_{u}], STRIDE / UNIT);
#for r DOWN
            o_{r}_{g}_{u} = coopMultiplyAdd(p_mat_{r}_{n}, v_{n}_{g}_{u}, o_{r}_{g}_{u});
#endfor
#endfor
#endfor
#endfor
            var four = s_0;
#for i QUADS
            four = max(four, s_{i});
#endfor
            var most = times * max(max(four.x, four.y), max(four.z, four.w));
            for (var step = 1u; step < TEAM; step <<= 1u) { most = max(most, subgroupShuffleXor(most, step)); }
            let rises = most > top + HEADROOM;
            let above = select(top, most, rises);
            fade = exp2(top - above);
            // A row that has seen nothing has no sums to fade.
            let fades = subgroupAny(rises && top > -1e29);
            if lane == 0u { grown[subgroup] = select(0u, 1u, fades); }
            top = above;
            total *= fade;
            // While all is masked the top is the sentinel itself, and weights must be 0 all the same.
            let base = max(top, -1e29);
#for i QUADS
            let p_{i} = exp2(fma(s_{i}, vec4(times), vec4(-base)));
            total += p_{i}.x + p_{i}.y + (p_{i}.z + p_{i}.w);
            put_weights(row * P_STRIDE + at_{i}, vec4<f16>(p_{i}));
#endfor
#for t ITEMS
            stage_key({t}u * FETCHED + fetched, piece, next_k_{t});
#endfor
            workgroupBarrier();
#for t ITEMS
            stage_value({t}u * FETCHED + fetched, piece, next_v_{t}, v_scale_{t});
#endfor
            key0 += KEYS;
            if key0 >= end { break; }
        }
    }
    workgroupBarrier();
    // The values of the last keys.
#for n P_MATS
#for r DOWN
    let at_p_last_{r}_{n} = ((own_row + {r}u * SIDE) * P_STRIDE + {n}u * SIDE) / UNIT;
    let p_last_{r}_{n} = coopLoadT<MatA>(&weights[at_p_last_{r}_{n}], P_STRIDE / UNIT);
#endfor
#endfor
#for n P_MATS
#for g GROUPS
#for u PER
    let at_v_{n}_{g}_{u} = ({n}u * SIDE * STRIDE + own_column + ({g}u * PER + {u}u) * SIDE) / UNIT;
    let v_{n}_{g}_{u} = coopLoadT<MatB>(&values[at_v_{n}_{g}_{u}], STRIDE / UNIT);
#for r DOWN
    o_{r}_{g}_{u} = coopMultiplyAdd(p_last_{r}_{n}, v_{n}_{g}_{u}, o_{r}_{g}_{u});
#endfor
#endfor
#endfor
#endfor

    for (var step = 1u; step < TEAM; step <<= 1u) { total += subgroupShuffleXor(total, step); }
    var norm = select(0.0, 1.0 / total, total > 0.0);
    let stored = first + row < rows;
#if EXTRAS != none
    if params.sinks != 0u {
        // A sink is one more key with a value of 0.
        let sink = LOG2E * sink_of(head * (params.heads / params.kv_heads) + folded % (params.heads / params.kv_heads));
        let most = max(top, sink);
        fade = exp2(top - most);
        total = total * fade + exp2(sink - most);
        norm = fade / total;
        top = most;
    }
    if params.lse != 0u && stored && part == 0u { lse[at_row] = select(MASKED, LN2 * (top + log2(total)), total > 0.0); }
#endif
#for g GROUPS
    workgroupBarrier();
#for r DOWN
#for u PER
    {
        let at = ((own_row + {r}u * SIDE) * S_STRIDE + own_key + {u}u * SIDE) / UNIT;
        coopStoreT(o_{r}_{g}_{u}, &scores[at], S_STRIDE / UNIT);
    }
#endfor
#endfor
    workgroupBarrier();
    for (var c = part * 4u; c < KEYS; c += TEAM * 4u) {
        let column = c / OWN_KEYS * OWN_COLUMNS + {g}u * PER * SIDE + c % OWN_KEYS;
        if stored && c % OWN_KEYS < PER * SIDE && column < params.e4 * 4u {
            out[at_row * params.e4 + column / 4u] = narrow(get_scores(row * S_STRIDE + c) * norm);
        }
    }
#endfor
}

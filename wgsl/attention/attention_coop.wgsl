// Attention over many queries on cooperative matrices of side SIDE: f16 operands, f32 sums. A workgroup owns 64 folded rows
// of a (sequence, KV head), each subgroup SIDE of them, and walks the keys KEYS at a time. Q and the sums of O stay in
// matrices; K, then V, pass through one f16 tile, fetched a stage ahead without any condition; S and P pass through
// workgroup memory, as matrices have no element access: TEAM threads of the owning subgroup share a row there, its maximum
// and total in registers. For the same reason O cannot be rescaled by rows in place, so it seldom is: weights are
// exp(s − top), and top follows the maximum only when that passes it by HEADROOM. Weights up to e^5.5 = 245 fit f16 as well
// as those up to 1, and a stale top cancels in out = O / total. Then O takes the way through workgroup memory (a product
// with a diagonal matrix would need O in the role of an f16 operand). Why 64 rows and keys: at D 128 and side 16 they fill
// 43 KiB, so two workgroups or more a multiprocessor hide each other's barriers, with 32 + 64 + 32 registers a lane for Q,
// O and the rows of S; 16 rows a subgroup then read 48 KiB of workgroup memory a step, which by arithmetic bounds an
// NVIDIA H100 at some 300 TFLOP/s. Not measured yet.
//!include "common/prefill.wgsl"
enable wgpu_cooperative_matrix;

//!include "common/coop_matrix.wgsl"

const ROWS = 64u;
const TEAM = THREADS / ROWS;
// Rows of the tile, of weights (P) and of scores (S) are padded against bank conflicts, by whole 16 bytes.
const STRIDE = WIDTH + 8u;
const P_STRIDE = KEYS + 8u;
const S_STRIDE = KEYS + 4u;
const MASKED = -1e30;
const HEADROOM = 5.5;

// Metal's loads want scalar arrays; elsewhere vectors make accesses wide.
#if VECTOR_TILES
var<workgroup> tile: array<vec4<f16>, KEYS * STRIDE / 4u>;
var<workgroup> weights: array<vec4<f16>, ROWS * P_STRIDE / 4u>;
var<workgroup> scores: array<vec4<f32>, ROWS * S_STRIDE / 4u>;
const UNIT = 4u;
fn put_tile(at: u32, x: vec4<f16>) { tile[at / 4u] = x; }
fn put_weights(at: u32, x: vec4<f16>) { weights[at / 4u] = x; }
fn put_scores(at: u32, x: vec4<f32>) { scores[at / 4u] = x; }
fn get_scores(at: u32) -> vec4<f32> { return scores[at / 4u]; }
#else
var<workgroup> tile: array<f16, KEYS * STRIDE>;
var<workgroup> weights: array<f16, ROWS * P_STRIDE>;
var<workgroup> scores: array<f32, ROWS * S_STRIDE>;
const UNIT = 1u;
fn put_tile(at: u32, x: vec4<f16>) {
#for e 4
    tile[at + {e}u] = x[{e}];
#endfor
}
fn put_weights(at: u32, x: vec4<f16>) {
#for e 4
    weights[at + {e}u] = x[{e}];
#endfor
}
fn put_scores(at: u32, x: vec4<f32>) {
#for e 4
    scores[at + {e}u] = x[{e}];
#endfor
}
fn get_scores(at: u32) -> vec4<f32> {
    return vec4(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
}
#endif
var<workgroup> grown: array<u32, SUBGROUPS>;
#if QUANTISED
var<workgroup> key_scales: array<f32, KEYS>;
#endif

// Eight elements of a row.
struct Halves { lo: vec4<f16>, hi: vec4<f16> }

// Columns past the row's end are zeros in Q and K, whose products they enter; sums of V's are dropped.
fn zeroed(x: Halves, inside: bool) -> Halves {
    return Halves(select(vec4<f16>(), x.lo, inside), select(vec4<f16>(), x.hi, inside));
}

fn fetch_q(row: u32, column: u32) -> Halves {
    let at = row * params.d4 + min(column / 4u, params.d4 - 2u);
    return zeroed(Halves(q[at], q[at + 1u]), column < params.d4 * 4u);
}

// A piece of a step's keys; past the last key it is that key's.
fn fetch_k(item: u32, key0: u32, last: u32, head: u32, sequence: Sequence) -> Halves {
    let row = key_row(min(key0 + item / (WIDTH / 8u), last), head, sequence);
    let piece = item % (WIDTH / 8u);
#if EXTRAS == paged
#if QUANTISED
    // Codes, which f16 holds exactly; scores get the scale.
    let eight = scaled(decode(k[row * (params.d4 / 2u) + min(piece, params.d4 / 2u - 1u)]), 1.0);
#else
    let eight = load_k(row, min(piece, params.d4 / 2u - 1u));
#endif
    return zeroed(Halves(vec4<f16>(eight.part0), vec4<f16>(eight.part1)), piece < params.d4 / 2u);
#else
    let at = row * params.d4 + min(piece * 2u, params.d4 - 2u);
    return zeroed(Halves(k[at], k[at + 1u]), piece < params.d4 / 2u);
#endif
}

fn fetch_v(item: u32, key0: u32, last: u32, head: u32, sequence: Sequence) -> Halves {
    let row = key_row(min(key0 + item / (WIDTH / 8u), last), head, sequence);
    let piece = min(item % (WIDTH / 8u), params.e4 / 2u - 1u);
#if EXTRAS == paged
    let eight = load_v(row, piece);
    return Halves(vec4<f16>(eight.part0), vec4<f16>(eight.part1));
#else
    return Halves(v[row * params.e4 + piece * 2u], v[row * params.e4 + piece * 2u + 1u]);
#endif
}

fn stage(item: u32, x: Halves) {
    let at = item / (WIDTH / 8u) * STRIDE + item % (WIDTH / 8u) * 8u;
    if item < KEYS * (WIDTH / 8u) {
        put_tile(at, x.lo);
        put_tile(at + 4u, x.hi);
    }
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
    // The last tiles see the most keys under a causal mask, so they start first.
    let first = (params.tiles - 1u - index % params.tiles) * ROWS;
    if first >= rows { return; }
    let head = (index / params.tiles) % params.kv_heads;
    let sequence = sequence_at(batch);
    let len = sequence.len;
    let sq = sequence.sq;
    let end = visible(min(first + ROWS, rows) - 1u, sq, len);
    let begin = first_visible(first, sq, len) / KEYS * KEYS;
    let last = max(end, 1u) - 1u;

    // The row that this thread's team owns, in the tile of rows; rows past the last stand for it and are not stored.
    let row = subgroup * SIDE + lane / TEAM;
    let part = lane % TEAM;
    let folded = min(first + row, rows - 1u);
    let at_row = query_row(folded, head, sequence);
    let high = visible(folded, sq, len);
#if EXTRAS != none
    let low = first_visible(folded, sq, len);
#endif
#if EXTRAS == tensors
    let at_bias = bias_start(folded, sequence.index, head);
#endif
    let own_weights = subgroup * SIDE * P_STRIDE;
    let own_scores = subgroup * SIDE * S_STRIDE;

    // Q goes through the memory of the weights, PER matrices of a subgroup at a time.
    let q_row = thread / (SIDE / 8u);
    let q_piece = thread % (SIDE / 8u) * 8u;
    let q_at = query_row(min(first + q_row, rows - 1u), head, sequence);
#for g GROUPS
#for u PER
    let q_raw_{g}_{u} = fetch_q(q_at, ({g}u * PER + {u}u) * SIDE + q_piece);
#endfor
#endfor
#for g GROUPS
    workgroupBarrier();
    if q_row < ROWS {
#for u PER
        put_weights(q_row * P_STRIDE + {u}u * SIDE + q_piece, q_raw_{g}_{u}.lo);
        put_weights(q_row * P_STRIDE + {u}u * SIDE + q_piece + 4u, q_raw_{g}_{u}.hi);
#endfor
    }
    workgroupBarrier();
#for u PER
    let at_q_{g}_{u} = (own_weights + {u}u * SIDE) / UNIT;
    let q_{g}_{u} = coopLoadT<MatA>(&weights[at_q_{g}_{u}], P_STRIDE / UNIT);
    var o_{g}_{u} = MatC();
#endfor
#endfor
    var top = MASKED;
    var total = 0.0; // of this thread's keys only
#for t ITEMS
    var next_{t} = Halves();
    if begin < end { next_{t} = fetch_k({t}u * THREADS + thread, begin, last, head, sequence); }
#endfor
    for (var key0 = begin; key0 < end; key0 += KEYS) {
        workgroupBarrier();
#for t ITEMS
        stage({t}u * THREADS + thread, next_{t});
#endfor
        workgroupBarrier();
#for t ITEMS
        next_{t} = fetch_v({t}u * THREADS + thread, key0, last, head, sequence);
#endfor
#if QUANTISED
        let key_scale = unpack2x16float(scales[key_row(min(key0 + thread % KEYS, last), head, sequence)]).x;
        if thread < KEYS { key_scales[thread] = key_scale; }
#endif
        for (var key = 0u; key < KEYS; key += UNROLL * SIDE) {
#for n UNROLL
            var s_mat_{n} = MatC();
#for g GROUPS
#for u PER
            let at_k_{n}_{g}_{u} = ((key + {n}u * SIDE) * STRIDE + ({g}u * PER + {u}u) * SIDE) / UNIT;
            let k_{n}_{g}_{u} = coopLoad<MatB>(&tile[at_k_{n}_{g}_{u}], STRIDE / UNIT);
            s_mat_{n} = coopMultiplyAdd(q_{g}_{u}, k_{n}_{g}_{u}, s_mat_{n});
#endfor
#endfor
            {
                let at = (own_scores + key + {n}u * SIDE) / UNIT;
                coopStoreT(s_mat_{n}, &scores[at], S_STRIDE / UNIT);
            }
#endfor
        }
        workgroupBarrier();
#for t ITEMS
        stage({t}u * THREADS + thread, next_{t});
        next_{t} = fetch_k({t}u * THREADS + thread, key0 + KEYS, last, head, sequence);
#endfor

        var four = vec4(MASKED);
#for i QUADS
        let at_{i} = ({i}u * TEAM + part) * 4u;
        let keys_{i} = vec4(key0 + at_{i}) + vec4(0u, 1u, 2u, 3u);
        var s_{i} = get_scores(row * S_STRIDE + at_{i}) * params.scale;
#if QUANTISED
        s_{i} *= vec4(key_scales[at_{i}], key_scales[at_{i} + 1u], key_scales[at_{i} + 2u], key_scales[at_{i} + 3u]);
#endif
#if EXTRAS == none
        let seen_{i} = keys_{i} < vec4(high);
#else
        s_{i} = bent(s_{i});
#if EXTRAS == tensors
        if params.bias == 1u {
            let b = vec4(at_bias) + min(keys_{i}, vec4(last));
            s_{i} += bitcast<vec4<f32>>(vec4(bias[b.x], bias[b.y], bias[b.z], bias[b.w]));
        }
#endif
        let seen_{i} = (keys_{i} < vec4(high)) & (keys_{i} >= vec4(low))
            & seen_in_tree(folded, key0 + at_{i}, len, sequence.index);
#endif
        s_{i} = select(vec4(MASKED), s_{i}, seen_{i});
        four = max(four, s_{i});
#endfor
        var most = max(max(four.x, four.y), max(four.z, four.w));
        for (var step = 1u; step < TEAM; step <<= 1u) { most = max(most, subgroupShuffleXor(most, step)); }
        let rises = most > top + HEADROOM;
        let above = select(top, most, rises);
        let fade = exp(top - above);
        // A row that has seen nothing has no sums to fade.
        let fades = subgroupAny(rises && top > -1e29);
        if lane == 0u { grown[subgroup] = select(0u, 1u, fades); }
        top = above;
        total *= fade;
#for i QUADS
        // While all is masked the top is the sentinel itself: the mask decides, not the difference.
        let p_{i} = select(vec4<f32>(), exp(s_{i} - top), seen_{i});
        total += p_{i}.x + p_{i}.y + (p_{i}.z + p_{i}.w);
        put_weights(row * P_STRIDE + at_{i}, vec4<f16>(p_{i}));
#endfor
        workgroupBarrier();

        // The same for the whole workgroup, as there are barriers inside.
        let any_grown = 0u
#for i SUBGROUPS
            | grown[{i}]
#endfor
            ;
        if any_grown != 0u {
#for g GROUPS
#for u PER
            {
                let at = (own_scores + {u}u * SIDE) / UNIT;
                coopStoreT(o_{g}_{u}, &scores[at], S_STRIDE / UNIT);
            }
#endfor
            workgroupBarrier();
            for (var c = part * 4u; c < PER * SIDE; c += TEAM * 4u) {
                put_scores(row * S_STRIDE + c, get_scores(row * S_STRIDE + c) * fade);
            }
            workgroupBarrier();
#for u PER
            {
                let at = (own_scores + {u}u * SIDE) / UNIT;
                o_{g}_{u} = coopLoadT<MatC>(&scores[at], S_STRIDE / UNIT);
            }
#endfor
            workgroupBarrier();
#endfor
        }
        for (var key = 0u; key < KEYS; key += UNROLL * SIDE) {
#for n UNROLL
            let at_p_{n} = (own_weights + key + {n}u * SIDE) / UNIT;
            let p_mat_{n} = coopLoadT<MatA>(&weights[at_p_{n}], P_STRIDE / UNIT);
#for g GROUPS
#for u PER
            let at_v_{n}_{g}_{u} = ((key + {n}u * SIDE) * STRIDE + ({g}u * PER + {u}u) * SIDE) / UNIT;
            let v_{n}_{g}_{u} = coopLoadT<MatB>(&tile[at_v_{n}_{g}_{u}], STRIDE / UNIT);
            o_{g}_{u} = coopMultiplyAdd(p_mat_{n}, v_{n}_{g}_{u}, o_{g}_{u});
#endfor
#endfor
#endfor
        }
    }

    for (var step = 1u; step < TEAM; step <<= 1u) { total += subgroupShuffleXor(total, step); }
    var norm = select(0.0, 1.0 / total, total > 0.0);
    let stored = first + row < rows;
#if EXTRAS != none
    if params.sinks != 0u {
        // A sink is one more key with a value of 0.
        let sink = sink_of(head * (params.heads / params.kv_heads) + folded % (params.heads / params.kv_heads));
        let most = max(top, sink);
        let fade = exp(top - most);
        total = total * fade + exp(sink - most);
        norm = fade / total;
        top = most;
    }
    if params.lse != 0u && stored && part == 0u { lse[at_row] = select(MASKED, top + log(total), total > 0.0); }
#endif
#for g GROUPS
    workgroupBarrier();
#for u PER
    {
        let at = (own_scores + {u}u * SIDE) / UNIT;
        coopStoreT(o_{g}_{u}, &scores[at], S_STRIDE / UNIT);
    }
#endfor
    workgroupBarrier();
    for (var c = part * 4u; c < PER * SIDE; c += TEAM * 4u) {
        let column = {g}u * PER * SIDE + c;
        if stored && column < params.e4 * 4u {
            out[at_row * params.e4 + column / 4u] = narrow(get_scores(row * S_STRIDE + c) * norm);
        }
    }
#endfor
}

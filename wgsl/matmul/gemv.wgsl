// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) for M ≤ ROWS_A = 1, 2, 4 or 8 rows of activations: every weight is read once.
// A team (a subgroup, or on the Base tier the workgroup) takes COLUMNS rows of w. Its lanes walk the rows side by side,
// 16 bytes of weights a lane and step, decode them in registers and multiply them with all rows of a, which come from
// the cache: w is the only stream from memory. Scales are applied once per group and lane, not once per weight.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"

// Chunks of 8 that share a scale within one packet.
#if SPLIT_PACKET
const SPAN = 2u;
#else
const SPAN = CHUNKS;
#endif
#if !SUBGROUP
var<workgroup> partial: array<f32, THREADS>;
#endif

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let group = group_index(place.group, place.groups);
#if SUBGROUP
    // Teams of a workgroup that is wider than TEAMS subgroups idle; one that is narrower takes turns.
    for (var team = lane.subgroup; team < TEAMS; team += lane.subgroups) {
        run_team((group * TEAMS + team) * COLUMNS, lane.subgroup_lane, lane.subgroup_size, lane);
    }
#else
    run_team(group * COLUMNS, lane.thread, THREADS, lane);
#endif
}

fn run_team(first: u32, member: u32, members: u32, lane: Lane) {
    var sum: array<array<f32, ROWS_A>, COLUMNS>;
    var rows: array<u32, COLUMNS>;
    for (var c = 0u; c < COLUMNS; c++) {
        rows[c] = min(first + c, params.n - 1u); // past the end: computed, not stored
        for (var m = 0u; m < ROWS_A; m++) { sum[c][m] = 0.0; }
    }
    for (var packet = member; packet < params.packets; packet += members) {
        var loaded: array<Packet, COLUMNS>;
        for (var c = 0u; c < COLUMNS; c++) { loaded[c] = load_packet(rows[c], packet); }
        for (var span = 0u; span < CHUNKS; span += SPAN) {
            let k0 = packet * PACKET + span * 8u;
            var part: array<array<f32, ROWS_A>, COLUMNS>;
            var total: array<f32, ROWS_A>;
            for (var m = 0u; m < ROWS_A; m++) {
                total[m] = 0.0;
                for (var c = 0u; c < COLUMNS; c++) { part[c][m] = 0.0; }
            }
            for (var chunk = 0u; chunk < SPAN; chunk++) {
                var x: array<Eight, ROWS_A>;
                for (var m = 0u; m < ROWS_A; m++) {
                    x[m] = widen(load_eight(min(m, params.m - 1u), k0 + chunk * 8u));
                    if OFFSET_CODES { total[m] += dot(x[m].lo + x[m].hi, vec4<f32>(1.0)); }
                }
                for (var c = 0u; c < COLUMNS; c++) {
                    let v = decode(loaded[c], span + chunk);
                    for (var m = 0u; m < ROWS_A; m++) {
                        part[c][m] += dot(v.lo, x[m].lo) + dot(v.hi, x[m].hi);
                    }
                }
            }
            let scale_group = min(k0 >> params.group_shift, max(params.groups, 1u) - 1u);
            for (var c = 0u; c < COLUMNS; c++) {
                let scale = load_scale(rows[c], scale_group);
                let zero = load_zero(rows[c], scale_group);
                for (var m = 0u; m < ROWS_A; m++) {
                    sum[c][m] += scale * (part[c][m] * CODE_UNIT - zero * total[m]);
                }
            }
        }
    }
    for (var m = 0u; m < ROWS_A; m++) {
#if PAIR
        for (var c = 0u; c < COLUMNS; c += 2u) {
            let gate = team_sum(sum[c][m], lane);
            let up = team_sum(sum[c + 1u][m], lane);
            if member == 0u && m < params.m && first + c < params.n { finish_pair(gate, up, m, first + c); }
        }
#else
        for (var c = 0u; c < COLUMNS; c++) {
            let all = team_sum(sum[c][m], lane);
            if member == 0u && m < params.m && first + c < params.n { finish(all, m, first + c); }
        }
#endif
    }
}

fn team_sum(value: f32, lane: Lane) -> f32 {
#if SUBGROUP
    return subgroupAdd(value);
#else
    workgroupBarrier();
    partial[lane.thread] = value;
    for (var step = THREADS / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane.thread < step { partial[lane.thread] += partial[lane.thread + step]; }
    }
    return partial[0]; // read by thread 0 only, which wrote it
#endif
}

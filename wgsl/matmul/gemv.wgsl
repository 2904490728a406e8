// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) for M ≤ ROWS_A = 1, 2, 4 or 8 rows of activations: every weight is read once.
// A team (a subgroup, or on the Base tier the workgroup) takes COLUMNS rows of w. Its lanes walk the rows side by side,
// 16 bytes of weights a lane and step, one step ahead of what they decode in registers and multiply with all rows of a.
// A single row of a is staged in workgroup memory as f32 (conversions bound this kernel), more rows come from the cache:
// w is the only stream from memory. Scales are applied once per group and lane.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"

#if !SUBGROUP
var<workgroup> partial: array<f32, THREADS>;
#endif
#if STAGED
// A stretch of TILE_PACKETS packets of the one row of activations, widened: [quarter][packet], padded by one, so that
// lanes that read the same quarter of neighbouring packets hit different banks.
const PITCH = TILE_PACKETS + 1u;
var<workgroup> staged: array<vec4<f32>, PITCH * PACKET / 4u>;
#endif

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let group = group_index(place.group, place.groups);
#if SUBGROUP
    // As many turns as the widest subgroups need; narrower ones leave some subgroups without a team, which still take part
    // in the barriers.
    for (var turn = 0u; turn < TEAMS; turn += lane.subgroups) {
        let team = turn + lane.subgroup;
        run_team((group * TEAMS + team) * COLUMNS, team < TEAMS, lane.subgroup_lane, lane.subgroup_size, lane);
    }
#else
    run_team(group * COLUMNS, true, lane.thread, THREADS, lane);
#endif
}

fn run_team(first: u32, busy: bool, member: u32, members: u32, lane: Lane) {
#for c COLUMNS
    let row_{c} = min(first + {c}u, params.n - 1u); // past the end: computed, not stored
    // Always one packet ahead, without a condition.
    var next_{c} = load_packet(row_{c}, min(member, params.packets - 1u));
#for m ROWS_A
    var sum_{c}_{m} = 0.0;
#endfor
#endfor
#for m ROWS_A
    let row_a_{m} = min({m}u, params.m - 1u);
#endfor
    var packet = member;
#if STAGED
    for (var tile = 0u; tile < params.packets; tile += TILE_PACKETS) {
        workgroupBarrier();
        stage(tile, lane.thread);
        workgroupBarrier();
        let end = select(0u, min(tile + TILE_PACKETS, params.packets), busy);
#else
    {
        let end = select(0u, params.packets, busy);
#endif
        for (; packet < end; packet += members) {
#for c COLUMNS
            let packet_{c} = next_{c};
            next_{c} = load_packet(row_{c}, min(packet + members, params.packets - 1u));
#endfor
#for s SPANS
            {
                // CHUNKS / SPANS chunks of 8 that share a scale.
                let k0 = packet * PACKET + {s}u * (PACKET / SPANS);
                let group = min(k0 >> params.group_shift, max(params.groups, 1u) - 1u);
#for m ROWS_A
                var total_{m} = 0.0;
#for c COLUMNS
                var part_{c}_{m} = 0.0;
#endfor
#endfor
#for h SPAN_CHUNKS
#for m ROWS_A
#if STAGED
                let at_{h} = ({s}u * SPAN_CHUNKS + {h}u) * 2u * PITCH + packet - tile;
                let x_{h}_{m} = Eight(staged[at_{h}], staged[at_{h} + PITCH]);
#elif ROWS == exact
                let x_{h}_{m} = widen(load_whole_eight(row_a_{m}, k0, {h}u));
#else
                let x_{h}_{m} = widen(load_eight(row_a_{m}, k0 + {h}u * 8u));
#endif
                if OFFSET_CODES { total_{m} += sum_eight(x_{h}_{m}); }
#endfor
#for c COLUMNS
                let v_{h}_{c} = decode(packet_{c}, {s}u * SPAN_CHUNKS + {h}u);
#for m ROWS_A
                part_{c}_{m} = dot_eight(v_{h}_{c}, x_{h}_{m}, part_{c}_{m});
#endfor
#endfor
#endfor
#for c COLUMNS
                let scale_{c} = load_scale(row_{c}, group);
                let zero_{c} = load_zero(row_{c}, group) / CODE_UNIT;
#for m ROWS_A
                sum_{c}_{m} += scale_{c} * (part_{c}_{m} - zero_{c} * total_{m});
#endfor
#endfor
            }
#endfor
        }
    }
    // Sums of the team, and the epilogue by its first member.
#for m ROWS_A
#for c COLUMNS
    let all_{c}_{m} = team_sum(sum_{c}_{m} * CODE_UNIT, lane);
#endfor
    if busy && member == 0u && {m}u < params.m {
#if PAIR
        if first < params.n { finish_pair(all_0_{m}, all_1_{m}, {m}u, first); }
#else
#for c COLUMNS
        if first + {c}u < params.n { finish(all_{c}_{m}, {m}u, first + {c}u); }
#endfor
#endif
    }
#endfor
}

#if STAGED
fn stage(tile: u32, thread: u32) {
    for (var e = thread; e < TILE_PACKETS * CHUNKS; e += THREADS) {
        let k = tile * PACKET + e * 8u;
        if k < params.k {
            let x = widen(load_whole_eight(0u, k, 0u));
            let at = (e % CHUNKS) * 2u * PITCH + e / CHUNKS;
            staged[at] = x.lo;
            staged[at + PITCH] = x.hi;
        }
    }
}
#endif

fn sum_eight(x: Eight) -> f32 {
    let s = x.lo + x.hi;
    return (s.x + s.y) + (s.z + s.w);
}

// A chain of multiply-adds; dot() would start with a product and end with an addition.
fn dot_eight(v: Eight, x: Eight, sum: f32) -> f32 {
    let low = fma(v.lo.w, x.lo.w, fma(v.lo.z, x.lo.z, fma(v.lo.y, x.lo.y, fma(v.lo.x, x.lo.x, sum))));
    return fma(v.hi.w, x.hi.w, fma(v.hi.z, x.hi.z, fma(v.hi.y, x.hi.y, fma(v.hi.x, x.hi.x, low))));
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

// How a team of TL lanes shares scores and probabilities in attention_decode: with subgroups by shuffles, otherwise through
// `pool`. Rows ride in the components of RV; of a key, a lane ends with FW of its W rows (F).
#if W == 4
alias RV = vec4<f32>;
fn row_of(value: RV, i: u32) -> f32 { return value[i]; }
fn of_pool(at: u32, i: u32) -> f32 { return pool[at][i]; }
fn of_totals(at: u32, i: u32) -> f32 { return totals[at][i]; }
#else
alias RV = f32;
fn row_of(value: RV, i: u32) -> f32 { return value; }
fn of_pool(at: u32, i: u32) -> f32 { return pool[at]; }
fn of_totals(at: u32, i: u32) -> f32 { return totals[at]; }
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
#if BYTES
// Products of K are integers until they are summed.
#if W == 4
alias SV = vec4<i32>;
#else
alias SV = i32;
#endif
#if FW == 4
alias SF = vec4<i32>;
#elif FW == 2
alias SF = vec2<i32>;
#else
alias SF = i32;
#endif
#else
alias SV = RV;
alias SF = F;
#endif
var<workgroup> pool: array<RV, 4u * THREADS>;
var<workgroup> tops: array<RV, TEAMS * H>;
var<workgroup> totals: array<RV, TEAMS * H>;

struct Seat {
    id: u32,    // in the workgroup
    t: u32,     // in the team
    base: u32,  // the team's first lane: in the subgroup, or in the workgroup
    own: u32,   // the key of U whose scores the lane ends with
}

#if SUBGROUP
// Sums over the team. Lanes halve what they hold at each exchange: keys first, then rows, then plain sums.
#if U == 4
fn team_sums(s0: SV, s1: SV, s2: SV, s3: SV, seat: Seat) -> SF {
    let far = (seat.t & (TL / 2u)) != 0u;
    let a0 = select(s0, s2, far) + subgroupShuffleXor(select(s2, s0, far), TL / 2u);
    let a1 = select(s1, s3, far) + subgroupShuffleXor(select(s3, s1, far), TL / 2u);
    return sums_of_two(a0, a1, seat);
}
#if !BYTES
fn team_sum(s: RV, seat: Seat) -> F { return team_sums(s, s, s, s, seat); }
#endif
#else
fn team_sums(s0: SV, s1: SV, seat: Seat) -> SF { return sums_of_two(s0, s1, seat); }
#if !BYTES
fn team_sum(s: RV, seat: Seat) -> F { return team_sums(s, s, seat); }
#endif
#endif

fn sums_of_two(a0: SV, a1: SV, seat: Seat) -> SF {
    let near = (seat.t & SHARE) != 0u;
    let b = select(a0, a1, near) + subgroupShuffleXor(select(a1, a0, near), SHARE);
#if FOLD == 1
    var f = b;
#else
    let third = (seat.t & (SHARE / 2u)) != 0u;
    let c = select(b.xy, b.zw, third) + subgroupShuffleXor(select(b.zw, b.xy, third), SHARE / 2u);
#if FOLD == 2
    var f = c;
#else
    let fourth = (seat.t & (SHARE / 4u)) != 0u;
    var f = select(c.x, c.y, fourth) + subgroupShuffleXor(select(c.y, c.x, fourth), SHARE / 4u);
#endif
#endif
#for i REST
    f += subgroupShuffleXor(f, 1u << {i}u);
#endfor
    return f;
}

fn keys_max(f: F, seat: Seat) -> F {
    var most = f;
#if U == 4
    most = max(most, subgroupShuffleXor(most, TL / 2u));
#endif
    return max(most, subgroupShuffleXor(most, SHARE));
}

fn keys_sum(f: F, seat: Seat) -> F {
    var sum = f;
#if U == 4
    sum += subgroupShuffleXor(sum, TL / 2u);
#endif
    return sum + subgroupShuffleXor(sum, SHARE);
}

fn publish(f: F, seat: Seat) {}

// All rows of one key, from the lanes that hold them.
fn take(f: F, key: u32, seat: Seat) -> RV {
    let from_lane = seat.base + key * SHARE;
#if FOLD == 1
    return subgroupShuffle(f, from_lane);
#elif FOLD == 2
    return RV(subgroupShuffle(f, from_lane), subgroupShuffle(f, from_lane + SHARE / 2u));
#else
    return RV(
        subgroupShuffle(f, from_lane), subgroupShuffle(f, from_lane + SHARE / 4u),
        subgroupShuffle(f, from_lane + SHARE / 2u), subgroupShuffle(f, from_lane + SHARE / 4u * 3u),
    );
#endif
}
#else
fn publish(f: F, seat: Seat) {
    workgroupBarrier();
    pool[seat.id] = f;
    workgroupBarrier();
}
fn take(f: F, key: u32, seat: Seat) -> RV { return pool[seat.base + key * SHARE]; }

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

fn team_sum(s: RV, seat: Seat) -> F { return team_sums(s, s, s, s, seat); }

fn keys_max(f: F, seat: Seat) -> F {
    publish(f, seat);
    return max(max(take(f, 0u, seat), take(f, 1u, seat)), max(take(f, 2u, seat), take(f, 3u, seat)));
}

fn keys_sum(f: F, seat: Seat) -> F {
    publish(f, seat);
    return take(f, 0u, seat) + take(f, 1u, seat) + (take(f, 2u, seat) + take(f, 3u, seat));
}
#endif

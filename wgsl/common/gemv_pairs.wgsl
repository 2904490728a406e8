// out[1,N] = epilogue(a[1,K] · w[N,K]ᵀ) of NF4, in workgroups that stay. Each subgroup takes a row of w at a time, its lanes EACH packets,
// loaded a row ahead, and so always the same columns of a, which it keeps as halves in a unit of their own. Two codes at once are looked up
// in a table of all pairs that the workgroup shares (common/weight/book_pairs.wgsl), and multiplied as halves.
// Needs EACH and, for kept_sums.wgsl, MOST_TILES and SIDE.
enable f16;
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"
//!include "common/bits_as_halves.wgsl"
//!include "common/rate.wgsl"
//!include "common/half_rate.wgsl"
//!include "common/touch.wgsl"

const SUBGROUPS = SHARES; // of a row
const STEP = THREADS / (32u * SHARES); // rows of w
const SUM_UNIT = CODE_UNIT;
//!include "common/kept_sums.wgsl"

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    // group_index() and a count of groups written out, as in common/own_tiles.wgsl.
    let index = place.group.y * place.groups.x + place.group.x;
    let groups = place.groups.x * place.groups.y;
    let own_row = lane.subgroup / SHARES;
    let share = lane.subgroup % SHARES;
    let own_steps = ((params.n + STEP - 1u) / STEP + groups - 1u - index) / groups;
#for e EACH
#for c PACKET_CHUNKS
    let column_{e}_{c} = (({e}u * SHARES + share) * 32u + lane.subgroup_lane) * PACKET + {c}u * 8u;
    let raw_{e}_{c} = load_eight(0u, column_{e}_{c});
#endfor
#endfor
    let first = min(index * STEP + own_row, params.n - 1u);
#for e EACH
    // Past the end of a row the last packet stands for those that are not there, times activations of zero.
    let own_{e} = min(({e}u * SHARES + share) * 32u + lane.subgroup_lane, params.packets - 1u);
    let group_{e} = scale_group(own_{e} * PACKET);
    var w_{e} = load_packet(first, own_{e});
    var scale_{e} = load_scale(first, group_{e});
#endfor
    fill_pairs(lane.thread);
    var top = vec4<f16>();
#for e EACH
#for c PACKET_CHUNKS
    let kept_{e}_{c} = select(vec4<u32>(), raw_{e}_{c}, column_{e}_{c} < params.k);
    let low_{e}_{c} = four_halves(kept_{e}_{c}.x, kept_{e}_{c}.y);
    let high_{e}_{c} = four_halves(kept_{e}_{c}.z, kept_{e}_{c}.w);
    top = max(top, max(abs(low_{e}_{c}), abs(high_{e}_{c})));
#endfor
#endfor
    let most = f32(max(max(top.x, top.y), max(top.z, top.w)));
    let rate = max(half_rate(most, 8u), 6.103515625e-5); // no zero as a half: infinite activations stay so
    let unit = inverse(rate);
#for e EACH
#for c PACKET_CHUNKS
    let x_{e}_{c} = array<vec4<f16>, 2>(times_rate(low_{e}_{c}, rate), times_rate(high_{e}_{c}, rate));
#endfor
#endfor
    workgroupBarrier();
    for (var t = 0u; t < own_steps; t++) {
        let next = min((index + min(t + 1u, own_steps - 1u) * groups) * STEP + own_row, params.n - 1u);
#for e EACH
        let next_w_{e} = load_packet(next, own_{e});
        let next_scale_{e} = load_scale(next, group_{e});
#endfor
        // Zero; so that the compiler does not put off the next loads until they are used.
        var sum = select(0.0, 1.0, never(0u
#for e EACH
            | next_w_{e}.x
#endfor
        ));
#for e EACH
        {
            var part = 0.0;
#for c PACKET_CHUNKS
            {
                let v = bare_halves(w_{e}, {c}u);
                let low = fma(two_halves(v.y), x_{e}_{c}[0].zw, two_halves(v.x) * x_{e}_{c}[0].xy);
                let high = fma(two_halves(v.w), x_{e}_{c}[1].zw, two_halves(v.z) * x_{e}_{c}[1].xy);
                part += (f32(low.x) + f32(low.y)) + (f32(high.x) + f32(high.y));
            }
#endfor
            sum += scale_{e} * part;
        }
#endfor
        sum *= unit;
#for s 5
        sum += subgroupShuffleXor(sum, 1u << {s}u);
#endfor
        if lane.subgroup_lane == 0u { partial[share * SUMS_ROOM + t * STEP + own_row] = sum; }
#for e EACH
        w_{e} = next_w_{e};
        scale_{e} = next_scale_{e};
#endfor
    }
    workgroupBarrier();
    finish_kept(lane.thread, index, groups, own_steps);
}

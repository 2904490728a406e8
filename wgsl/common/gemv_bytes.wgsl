// out[1,N] = epilogue(a[1,K] · w[N,K]ᵀ) of integer codes, four at once as bytes (dot4I8Packed), in workgroups that stay. Not on matrices, which
// take bytes one by one and want them together again (docs/performance.md), but the rest of this tier suits it: 32 lanes, loops that stay
// loops. Each lane has a packet of every row, and so always the same columns of a: it makes them integers of two digits (common/digits.wgsl)
// once, in a unit of their own. The workgroup takes STEP rows of w at a time, loaded a step ahead, each subgroup 32 packets of each; few
// rows, so that registers leave room for many subgroups on a core, which hide each other's loads. Sums of all steps meet at the end.
enable f16;
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"
//!include "common/digits.wgsl"
//!include "common/rate.wgsl"
//!include "common/top.wgsl"

const STEP = 4u; // rows of w
const SUBGROUPS = THREADS / 32u;
const SUM_UNIT = 1.0 / BYTE_UNIT;
//!include "common/kept_sums.wgsl"

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    // group_index() and a count of groups written out, as in common/own_tiles.wgsl.
    let index = place.group.y * place.groups.x + place.group.x;
    let groups = place.groups.x * place.groups.y;
    let own_steps = ((params.n + STEP - 1u) / STEP + groups - 1u - index) / groups;
    // Past the end of a row the last packet stands for those that are not there, times activations of zero.
    let own = min(lane.thread, params.packets - 1u);
    let group = scale_group(own * PACKET);

#for e PACKET_CHUNKS
    let column_{e} = lane.thread * PACKET + {e}u * 8u;
    let raw_{e} = load_eight(0u, column_{e});
#endfor
    var top = Top();
    var bad = Top();
    var all = vec4<f32>();
    // Zero, as grids have no third dimension, which the compiler does not know.
    let nothing = place.group.z;
#for e PACKET_CHUNKS
    let x_{e} = widen(select(vec4<u32>(), raw_{e}, column_{e} < params.k), column_{e});
    top = higher(top, x_{e});
    bad = unless_finite(bad, x_{e}, nothing);
    all += x_{e}.lo + x_{e}.hi;
#endfor
    let total = total_of(all);
    let rate = rate_of(1.01 * highest(top), 14u); // digits below MOST
    let unit = inverse(rate) + ((bad.x + bad.y) + (bad.z + bad.w));
    // Sixteen columns are a unit of bytes().
    let ordered_0 = in_order(x_0, x_1);
    let ordered_1 = in_order(x_2, x_3);
#for u 2
#for i 4
    let digits_{u}_{i} = digits_of(ordered_{u}[{i}], rate);
#endfor
#endfor

#for c 4
    let first_{c} = min(index * STEP + {c}u, params.n - 1u);
    var w_{c} = load_packet(first_{c}, own);
    var scale_{c} = load_scale(first_{c}, group);
#endfor
    for (var t = 0u; t < own_steps; t++) {
        let next = (index + min(t + 1u, own_steps - 1u) * groups) * STEP;
#for c 4
        let row_{c} = min(next + {c}u, params.n - 1u); // past the end: computed, not stored
        var next_w_{c} = load_packet(row_{c}, own);
        let next_scale_{c} = load_scale(row_{c}, group);
#endfor
        // Never, as there are fewer steps than rows: it keeps the loads above, as in common/asked.wgsl. As the words are copied at any rate, it
        // may as well change them.
        if t >= params.n {
#for c 4
            next_w_{c} = subgroupShuffleXor(next_w_{c}, 1u);
#endfor
        }
#for c 4
#if CODES == int2
        // Codes stay where they are in their bytes, so each place has sums of its own and counts four times the one below.
#for i 4
        var low_{c}_{i} = 0;
        var high_{c}_{i} = 0;
#for u 2
        let bytes_{u}_{i}_{c} = bytes_in_place(w_{c}, {u}u, {i}u);
        low_{c}_{i} += dot4I8Packed(bytes_{u}_{i}_{c}, digits_{u}_{i}.x);
        high_{c}_{i} += dot4I8Packed(bytes_{u}_{i}_{c}, digits_{u}_{i}.y);
#endfor
#endfor
        let low_{c} = ((low_{c}_0 * 4 + low_{c}_1) * 4 + low_{c}_2) * 4 + low_{c}_3;
        let high_{c} = ((high_{c}_0 * 4 + high_{c}_1) * 4 + high_{c}_2) * 4 + high_{c}_3;
#else
        var low_{c} = 0;
        var high_{c} = 0;
#for u 2
        let bytes_{u}_{c} = bytes(w_{c}, {u}u);
#for i 4
        low_{c} += dot4I8Packed(bytes_{u}_{c}[{i}], digits_{u}_{i}.x);
        high_{c} += dot4I8Packed(bytes_{u}_{c}[{i}], digits_{u}_{i}.y);
#endfor
#endfor
#endif
        let part_{c} = f32((high_{c} << 8u) + low_{c}) * unit;
        let sum_{c} = scale_{c} * (part_{c} - ZERO / SUM_UNIT * total);
#endfor
        let sum = sum_of_lanes(vec4<f32>(sum_0, sum_1, sum_2, sum_3), lane);
        if lane.subgroup_lane < STEP { partial[lane.subgroup * SUMS_ROOM + t * STEP + lane.subgroup_lane] = sum; }
#for c 4
        w_{c} = next_w_{c};
        scale_{c} = next_scale_{c};
#endfor
    }
    workgroupBarrier();
    finish_kept(lane.thread, index, groups, own_steps);
}

// What is still to be taken off codes: ZERO times these activations.
#if CODES == int2
fn total_of(x: vec4<f32>) -> f32 { return x.x + x.y + x.z; }
const ZERO = FIXED_ZERO;
#else
fn total_of(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }
const ZERO = FIXED_ZERO - BYTE_ZERO;
#endif

// The subgroup's sums of four values: lane l gets that of value l % 4, as in common/fold.wgsl.
fn sum_of_lanes(four: vec4<f32>, lane: Lane) -> f32 {
    let by2 = (lane.subgroup_lane & 2u) != 0u;
    let two = select(four.xy, four.zw, by2) + subgroupShuffleXor(select(four.zw, four.xy, by2), 2u);
    let by1 = (lane.subgroup_lane & 1u) != 0u;
    var one = select(two.x, two.y, by1) + subgroupShuffleXor(select(two.y, two.x, by1), 1u);
#for s 3
    one += subgroupShuffleXor(one, 4u << {s}u);
#endfor
    return one;
}

// The subgroup's sums of eight values: lane l gets that of value l % 8. Each step sends half of the values away.
fn fold(lo: vec4<f32>, hi: vec4<f32>, lane: Lane) -> f32 {
    let l = lane.subgroup_lane;
    let by4 = (l & 4u) != 0u;
    let four = select(lo, hi, by4) + subgroupShuffleXor(select(hi, lo, by4), 4u);
    let by2 = (l & 2u) != 0u;
    let two = select(four.xy, four.zw, by2) + subgroupShuffleXor(select(four.zw, four.xy, by2), 2u);
    let by1 = (l & 1u) != 0u;
    var one = select(two.x, two.y, by1) + subgroupShuffleXor(select(two.y, two.x, by1), 1u);
    // A workgroup may be narrower than a subgroup.
    for (var step = 8u; step < min(lane.subgroup_size, THREADS); step <<= 1u) { one += subgroupShuffleXor(one, step); }
    return one;
}

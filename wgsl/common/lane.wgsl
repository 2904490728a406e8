// Where a thread stands in its workgroup: the entry point's arguments as one value for the helpers.
struct Lane {
    thread: u32,        // local_invocation_index
    subgroup: u32,      // 0 on the Base tier
    subgroups: u32,
    subgroup_lane: u32,
    subgroup_size: u32,
}

struct Place {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
#if SUBGROUP
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    @builtin(subgroup_size) subgroup_size: u32,
#endif
}

fn lane_of(place: Place) -> Lane {
#if SUBGROUP
    return Lane(place.thread, place.subgroup, place.subgroups, place.subgroup_lane, place.subgroup_size);
#else
    return Lane(place.thread, 0u, 1u, place.thread, 1u);
#endif
}

// Within main() of the kernels whose workgroups stay and take every so many-th tile of 16 rows of w, own_tiles of them; lane 4·i + j is `own`.
    // group_index() and a count of groups written out: naga takes the result of a call for non-uniform.
    let index = place.group.y * place.groups.x + place.group.x;
    let groups = place.groups.x * place.groups.y;
    let tiles = (params.n + SIDE - 1u) / SIDE;
    let own_tiles = (tiles + groups - 1u - index) / groups;
    let own = vec2<u32>(lane.subgroup_lane / 4u, lane.subgroup_lane % 4u);

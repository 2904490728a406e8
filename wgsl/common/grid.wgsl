// Grids are one-dimensional; the host folds them into two dimensions where one would pass the adapter's limit
// (65535 nearly everywhere). A kernel must ignore indices past its own count: the fold may round up.
fn group_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// Grids are one-dimensional; the host folds them into two dimensions where one would pass the limit of 65535. A kernel must
// ignore indices past its own count: the fold may round up.
inline uint group_index(uint3 group, uint3 groups) { return group.y * groups.x + group.x; }

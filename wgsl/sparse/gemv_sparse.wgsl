// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ), w N:M-sparse, few rows of a: every weight is read once.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/sparse.wgsl"

#if WALK
//!include "common/sparse_walk.wgsl"
#else
//!include "common/sparse_teams.wgsl"
#endif

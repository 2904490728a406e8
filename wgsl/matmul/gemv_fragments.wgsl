// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) for up to eight rows of a, as the weight's format and shape ask for: integers as bytes and codebooks by lanes,
// which have no matrices; several rows of a; one row, with one block of w for each subgroup or with several.
#if BYTES
//!include "common/gemv_bytes.wgsl"
#elif BOOK
//!include "common/gemv_pairs.wgsl"
#elif FEW
//!include "common/gemv_few.wgsl"
#elif EACH == 1
//!include "common/gemv_short.wgsl"
#else
//!include "common/gemv_blocks.wgsl"
#endif

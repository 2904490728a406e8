// Weights of every format, decoded eight at a time by the block that `msl/common/weight/` has for the CODES. The same bits and
// the same methods as in wgsl/common/weight.wgsl, which explains them.
//
// Needs WEIGHT (a format), CODES (its block), SCALE_FORMAT = none|f16|e8m0|e4m3, STORED_ZEROS, PACKET, PACKET_WORDS.
//!include "common/eight.metal"

// What one thread loads at once: PACKET elements in CHUNKS chunks of eight.
#if WEIGHT == f32
struct Packet { float4 lo; float4 hi; };
#else
using Packet = uint4;
#endif
constant constexpr uint CHUNKS = PACKET / 8u;

#if CODES == f32
//!include "common/weight/f32.metal"
#elif CODES == f16
//!include "common/weight/f16.metal"
#elif CODES == bf16
//!include "common/weight/bf16.metal"
#elif CODES == fp4
//!include "common/weight/fp4.metal"
#elif CODES == int4
//!include "common/weight/int4.metal"
#elif CODES == int8
//!include "common/weight/int8.metal"
#elif CODES == e4m3
//!include "common/weight/e4m3.metal"
#elif CODES == e5m2
//!include "common/weight/e5m2.metal"
#elif CODES == nf4
//!include "common/weight/nf4.metal"
#elif CODES == int3
//!include "common/weight/int3.metal"
#elif CODES == nf3
//!include "common/weight/nf3.metal"
#elif CODES == int2
//!include "common/weight/int2.metal"
#endif

// The zero point when it is not stored, and whether there is one at all.
#if WEIGHT == int4
constant constexpr float FIXED_ZERO = 8.0f;
constant constexpr bool OFFSET_CODES = true;
#elif WEIGHT == int8
constant constexpr float FIXED_ZERO = 128.0f;
constant constexpr bool OFFSET_CODES = true;
#elif WEIGHT == int3
constant constexpr float FIXED_ZERO = 4.0f;
constant constexpr bool OFFSET_CODES = true;
#elif WEIGHT == int2
constant constexpr float FIXED_ZERO = 2.0f;
constant constexpr bool OFFSET_CODES = true;
#else
constant constexpr float FIXED_ZERO = 0.0f;
constant constexpr bool OFFSET_CODES = STORED_ZEROS;
#endif

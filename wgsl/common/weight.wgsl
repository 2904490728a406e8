// Weights of every format, decoded eight at a time by the block that `wgsl/common/weight/` has for the CODES.
//
// A packet is what one thread loads at once: 16 bytes (32 for f32, 12 of 3-bit and 8 of 2-bit codes), that is PACKET elements in
// CHUNKS chunks of 8. decode() gives a chunk in units of codes: value = scale · (code · CODE_UNIT − zero). Integers are decoded
// through the subnormal halves q·2⁻²⁴ and FP4 through the halves v·2⁻¹⁴: two masks put a pair of codes into the two halves of a
// word and unpack2x16float, which every GPU does in hardware, converts both. No table, no sign extension.
//
// HALVES adds half_weights(), and half_codes() for fp4; SMALL_SCALES, for fp4: they take scales times CODE_UNIT. BARE, for fp4, int4 and nf4, adds
// bare_halves() and bare_order() (common/weight/bare.wgsl). MULTIPLIES: an integer product is as fast as a shift.
// BOOK, for nf4 and nf3, keeps the codebook in workgroup memory; with BARE all pairs of its values (common/weight/book_pairs.wgsl). BYTES, for integers, adds bytes(): sixteen codes, less BYTE_ZERO, times BYTE_UNIT,
// as signed bytes for dot4I8Packed. in_order() gives activations in the order in which their bytes come.
// Needs WEIGHT (a format), CODES (its block), SCALE_FORMAT = none|f16|e8m0|e4m3, STORED_ZEROS, QUANTISED, PACKET.
struct Eight { lo: vec4<f32>, hi: vec4<f32> }
#if HALVES
//!include "common/weight/halves.wgsl"
#endif
#if BARE
//!include "common/weight/bare.wgsl"
#endif

#if WEIGHT == f32
struct Packet { lo: vec4<u32>, hi: vec4<u32> }
#else
alias Packet = vec4<u32>;
#endif
const CHUNKS = PACKET / 8u;

#if CODES == f32
//!include "common/weight/f32.wgsl"
#elif CODES == f16
//!include "common/weight/f16.wgsl"
#elif CODES == bf16
//!include "common/weight/bf16.wgsl"
#elif CODES == fp4
//!include "common/weight/fp4.wgsl"
#elif CODES == int4
//!include "common/weight/int4.wgsl"
#elif CODES == int8
//!include "common/weight/int8.wgsl"
#elif CODES == e4m3
//!include "common/weight/e4m3.wgsl"
#elif CODES == e5m2
//!include "common/weight/e5m2.wgsl"
#elif CODES == nf4
//!include "common/weight/nf4.wgsl"
#elif CODES == int3
//!include "common/weight/int3.wgsl"
#elif CODES == nf3
//!include "common/weight/nf3.wgsl"
#elif CODES == int2
//!include "common/weight/int2.wgsl"
#endif

// The zero point when it is not stored, and whether there is one at all.
#if WEIGHT == int4
const FIXED_ZERO = 8.0;
const OFFSET_CODES = true;
#elif WEIGHT == int8
const FIXED_ZERO = 128.0;
const OFFSET_CODES = true;
#elif WEIGHT == int3
const FIXED_ZERO = 4.0;
const OFFSET_CODES = true;
#elif WEIGHT == int2
const FIXED_ZERO = 2.0;
const OFFSET_CODES = true;
#else
const FIXED_ZERO = 0.0;
const OFFSET_CODES = STORED_ZEROS;
#endif

// Halves are bound two a word, so that no adapter needs f16 to read them.
fn half_of(word: u32, index: u32) -> f32 {
    return unpack2x16float(word >> ((index & 1u) * 16u)).x;
}

// Weights of every format, decoded eight at a time.
//
// A packet is what one thread loads at once: 16 bytes (32 for f32), that is PACKET elements in CHUNKS chunks of 8. decode()
// gives a chunk in units of codes: value = scale · (code · CODE_UNIT − zero). Integer codes are decoded through the
// subnormal halves q·2⁻²⁴ and FP4 through the halves v·2⁻¹⁴: two masks put a pair of codes into the two halves of a word
// and unpack2x16float, which every GPU does in hardware, converts both. No table, no sign extension.
//
// Needs WEIGHT = f32|f16|bf16|fp4|int4|int4z|int8, QUANTISED (not the first three) and, for scales, `group_shift` = log2(group) (31: one group a row).
struct Eight { lo: vec4<f32>, hi: vec4<f32> }

#if WEIGHT == f32
struct Packet { lo: vec4<u32>, hi: vec4<u32> }
#else
alias Packet = vec4<u32>;
#endif

#if !QUANTISED
const PACKET = 8u;
const CODE_UNIT = 1.0;
#elif WEIGHT == fp4
const PACKET = 32u;
const CODE_UNIT = 16384.0;
#elif WEIGHT == int8
const PACKET = 16u;
const CODE_UNIT = 16777216.0;
#else
const PACKET = 32u;
const CODE_UNIT = 16777216.0;
#endif
const CHUNKS = PACKET / 8u;

#if WEIGHT == fp4
// The upload has arranged each word (arrange_fp4 in src/matmul/weight.rs) so that one or two shifts bring a pair's signs to
// bits 31 and 15 and its exponents and mantissas to bits 27..25 and 11..9: integer operations bound a GEMV on NVIDIA,
// where they run at half the rate of multiply-adds.
fn decode(p: Packet, chunk: u32) -> Eight {
    let q = p[chunk];
    let e04 = unpack2x16float(q & 0x8e008e00u);
    let e15 = unpack2x16float((q << 3u) & 0x8e008e00u);
    let e26 = unpack2x16float(((q << 6u) & 0x0e000e00u) | ((q << 1u) & 0x80008000u));
    let e37 = unpack2x16float(((q << 9u) & 0x0e000e00u) | ((q << 2u) & 0x80008000u));
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}
#elif WEIGHT == int8
// Two's complement to offset binary by flipping the sign bits; the offset 128 is this format's zero point.
fn decode(p: Packet, chunk: u32) -> Eight {
    let q0 = p[2u * chunk] ^ 0x80808080u;
    let q1 = p[2u * chunk + 1u] ^ 0x80808080u;
    let e02 = unpack2x16float(q0 & 0x00ff00ffu);
    let e13 = unpack2x16float((q0 >> 8u) & 0x00ff00ffu);
    let e46 = unpack2x16float(q1 & 0x00ff00ffu);
    let e57 = unpack2x16float((q1 >> 8u) & 0x00ff00ffu);
    return Eight(vec4<f32>(e02.x, e13.x, e02.y, e13.y), vec4<f32>(e46.x, e57.x, e46.y, e57.y));
}
#elif WEIGHT == f16
fn decode(p: Packet, chunk: u32) -> Eight {
    return Eight(
        vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y)),
        vec4<f32>(unpack2x16float(p.z), unpack2x16float(p.w)),
    );
}
#elif WEIGHT == bf16
fn bf16_pair(word: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}
fn decode(p: Packet, chunk: u32) -> Eight {
    return Eight(
        vec4<f32>(bf16_pair(p.x), bf16_pair(p.y)),
        vec4<f32>(bf16_pair(p.z), bf16_pair(p.w)),
    );
}
#elif WEIGHT == f32
fn decode(p: Packet, chunk: u32) -> Eight {
    return Eight(bitcast<vec4<f32>>(p.lo), bitcast<vec4<f32>>(p.hi));
}
#else
fn decode(p: Packet, chunk: u32) -> Eight {
    let q = p[chunk];
    let e04 = unpack2x16float(q & 0x000f000fu);
    let e15 = unpack2x16float((q >> 4u) & 0x000f000fu);
    let e26 = unpack2x16float((q >> 8u) & 0x000f000fu);
    let e37 = unpack2x16float((q >> 12u) & 0x000f000fu);
    return Eight(vec4<f32>(e04.x, e15.x, e26.x, e37.x), vec4<f32>(e04.y, e15.y, e26.y, e37.y));
}
#endif

// The zero point when it is not stored, and whether there is one at all.
#if WEIGHT == int4
const FIXED_ZERO = 8.0;
const OFFSET_CODES = true;
#elif WEIGHT == int8
const FIXED_ZERO = 128.0;
const OFFSET_CODES = true;
#elif WEIGHT == int4z
const OFFSET_CODES = true;
#else
const FIXED_ZERO = 0.0;
const OFFSET_CODES = false;
#endif

// Halves are bound two a word, so that no adapter needs f16 to read them.
fn half_of(word: u32, index: u32) -> f32 {
    return unpack2x16float(word >> ((index & 1u) * 16u)).x;
}

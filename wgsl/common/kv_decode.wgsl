// Rows of a KV cache, read in pieces of eight elements. Needs STORE = f32|f16|bf16|e4m3|int8|int4|fp4 and QUANTISED (the last four).
//
// A lane loads a Raw (32, 16, 16, 8, 8, 4 or 4 bytes), and decode() gives its elements in units of codes:
// value = scale · CODE_UNIT · (decoded − CODE_OFFSET). Codes become halves by masks and shifts, and unpack2x16float converts
// two at once in hardware: integers as the subnormals q·2⁻²⁴, E4M3 as v·2⁻⁸, FP4 as v·2⁻¹⁴. Unit, offset and scale are
// applied to scores and probabilities, one of each per key, not to elements.
struct Eight { part0: vec4<f32>, part1: vec4<f32> }

#if STORE == f32
struct Raw { lo: vec4<u32>, hi: vec4<u32> }
fn decode(raw: Raw) -> Eight { return Eight(bitcast<vec4<f32>>(raw.lo), bitcast<vec4<f32>>(raw.hi)); }
#elif STORE == f16
alias Raw = vec4<u32>;
fn decode(raw: Raw) -> Eight {
    return Eight(
        vec4<f32>(unpack2x16float(raw.x), unpack2x16float(raw.y)),
        vec4<f32>(unpack2x16float(raw.z), unpack2x16float(raw.w)),
    );
}
#elif STORE == bf16
alias Raw = vec4<u32>;
fn decode(raw: Raw) -> Eight {
    let even = bitcast<vec4<f32>>(raw << vec4(16u));
    let odd = bitcast<vec4<f32>>(raw & vec4(0xffff0000u));
    return Eight(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}
#elif STORE == e4m3
alias Raw = vec2<u32>;
const CODE_UNIT = 256.0;
// Codes in the high bytes of the two halves: the sign stays at bit 15, exponent and mantissa go to bits 13..7.
fn halves(word: u32) -> vec2<f32> {
    return unpack2x16float(((word >> 1u) & 0x3f803f80u) | (word & 0x80008000u));
}
fn decode(raw: Raw) -> Eight {
    let e02 = halves(raw.x << 8u);
    let e13 = halves(raw.x);
    let e46 = halves(raw.y << 8u);
    let e57 = halves(raw.y);
    return Eight(vec4(e02.x, e13.x, e02.y, e13.y), vec4(e46.x, e57.x, e46.y, e57.y));
}
#elif STORE == int8
alias Raw = vec2<u32>;
const CODE_UNIT = 16777216.0;
const CODE_OFFSET = 128.0;
fn decode(raw: Raw) -> Eight {
    let e02 = unpack2x16float(raw.x & 0x00ff00ffu);
    let e13 = unpack2x16float((raw.x >> 8u) & 0x00ff00ffu);
    let e46 = unpack2x16float(raw.y & 0x00ff00ffu);
    let e57 = unpack2x16float((raw.y >> 8u) & 0x00ff00ffu);
    return Eight(vec4(e02.x, e13.x, e02.y, e13.y), vec4(e46.x, e57.x, e46.y, e57.y));
}
#elif STORE == int4
alias Raw = u32;
const CODE_UNIT = 16777216.0;
const CODE_OFFSET = 8.0;
fn decode(raw: Raw) -> Eight {
    let e04 = unpack2x16float(raw & 0x000f000fu);
    let e15 = unpack2x16float((raw >> 4u) & 0x000f000fu);
    let e26 = unpack2x16float((raw >> 8u) & 0x000f000fu);
    let e37 = unpack2x16float((raw >> 12u) & 0x000f000fu);
    return Eight(vec4(e04.x, e15.x, e26.x, e37.x), vec4(e04.y, e15.y, e26.y, e37.y));
}
#else
alias Raw = u32;
const CODE_UNIT = 16384.0;
// Signs and magnitudes lie where one or two shifts bring those of a pair to bits 15 and 11..9 of the halves.
fn decode(raw: Raw) -> Eight {
    let e04 = unpack2x16float(raw & 0x8e008e00u);
    let e15 = unpack2x16float((raw << 3u) & 0x8e008e00u);
    let e26 = unpack2x16float(((raw << 6u) & 0x0e000e00u) | ((raw << 1u) & 0x80008000u));
    let e37 = unpack2x16float(((raw << 9u) & 0x0e000e00u) | ((raw << 2u) & 0x80008000u));
    return Eight(vec4(e04.x, e15.x, e26.x, e37.x), vec4(e04.y, e15.y, e26.y, e37.y));
}
#endif

// Keys of integer codes as bytes, for attention_decode: the queries, which do not change from key to key, become integers of
// two signed bytes, 256 · high + low, in a unit of each row, and dot4I8Packed multiplies four codes at once, exactly.
// 15 bits of the row's largest are finer than the rounding of a query in f16 or bf16. Needs Eight, Raw and decode_team.wgsl.
//!include "common/digits.wgsl"
struct Digits { low: vec2<u32>, high: vec2<u32> }

#if STORE == int8
const BYTE_OFFSET = 0;
fn bytes(raw: Raw) -> vec2<u32> { return raw ^ vec2<u32>(0x80808080u); }
fn in_order(x: Eight) -> Eight { return x; }
#else
// Codes 0, 2, 4, 6, then the others. They are positive: 8 more than what they mean.
const BYTE_OFFSET = 8;
fn bytes(raw: Raw) -> vec2<u32> { return vec2<u32>(raw, raw >> 4u) & vec2<u32>(0x0f0f0f0fu); }
fn in_order(x: Eight) -> Eight {
    return Eight(vec4<f32>(x.part0.xz, x.part1.xz), vec4<f32>(x.part0.yw, x.part1.yw));
}
#endif

fn most_of(x: Eight) -> f32 {
    let most = max(abs(x.part0), abs(x.part1));
    return max(max(most.x, most.y), max(most.z, most.w));
}

fn team_max(x: RV) -> RV {
    var most = x;
    for (var i = 1u; i < TL; i *= 2u) { most = max(most, subgroupShuffleXor(most, i)); }
    return most;
}

// The rows that a lane ends with.
fn own_rows(x: RV, seat: Seat) -> F {
#if FOLD == 1
    return x;
#else
    let two = select(x.xy, x.zw, (seat.t & (SHARE / 2u)) != 0u);
#if FOLD == 2
    return two;
#else
    return select(two.x, two.y, (seat.t & (SHARE / 4u)) != 0u);
#endif
#endif
}

fn digits(x: Eight, rate: f32) -> Digits {
    let ordered = in_order(x);
    let d0 = digits_of(ordered.part0, rate);
    let d1 = digits_of(ordered.part1, rate);
    return Digits(vec2<u32>(d0.x, d1.x), vec2<u32>(d0.y, d1.y));
}

fn sum_of_digits(d: Digits) -> i32 {
    let low = dot4I8Packed(d.low.x, 0x01010101u) + dot4I8Packed(d.low.y, 0x01010101u);
    let high = dot4I8Packed(d.high.x, 0x01010101u) + dot4I8Packed(d.high.y, 0x01010101u);
    return 256 * high + low;
}

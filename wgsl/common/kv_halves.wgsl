// Codes of a KV cache as halves, two of a word at a time, for matrices that are made of what a thread holds: the halves that their bits
// are, in the units and with the offset of kv_decode.wgsl, which this needs, but where HIGH says otherwise.
#if STORE == int4
const HIGH = 16.0; // Units of the second and fourth pair: they stay where they are in their words.
#else
const HIGH = 1.0;
#endif
// Of sums of values.
#if QUANTISED
const SUM_UNIT = CODE_UNIT;
#else
const SUM_UNIT = 1.0;
#endif

//!include "common/bits_as_halves.wgsl"

// Of a word that holds elements, or codes, of two places in its lower and upper half: the pairs of them.
#if STORE == int8
fn first_pair(word: u32) -> u32 { return word & 0x00ff00ffu; }
fn second_pair(word: u32) -> u32 { return (word >> 8u) & 0x00ff00ffu; }
#elif STORE == e4m3
//!include "common/e4m3_as_halves.wgsl"
fn first_pair(word: u32) -> u32 { return signs_and_sizes(word << 8u); }
fn second_pair(word: u32) -> u32 { return signs_and_sizes(word); }
#elif STORE == int4
fn first_pair(word: u32) -> u32 { return word & 0x000f000fu; }
fn second_pair(word: u32) -> u32 { return word & 0x00f000f0u; }
fn third_pair(word: u32) -> u32 { return first_pair(word >> 8u); }
fn fourth_pair(word: u32) -> u32 { return second_pair(word >> 8u); }
#elif STORE == fp4
//!include "common/fp4_as_halves.wgsl"
#endif

// Values without their offset, which sums over thousands of keys would have to lose again; codes and offsets are subnormal halves.
#if OFFSET
const OFFSET_HALF = u32(CODE_OFFSET) * 0x10001u;
const HIGH_OFFSET_HALF = u32(CODE_OFFSET * HIGH) * 0x10001u;
fn low_values(a: u32, b: u32) -> vec4<f16> { return four_halves(a, b) - four_halves(OFFSET_HALF, OFFSET_HALF); }
fn high_values(a: u32, b: u32) -> vec4<f16> { return four_halves(a, b) - four_halves(HIGH_OFFSET_HALF, HIGH_OFFSET_HALF); }
#else
fn low_values(a: u32, b: u32) -> vec4<f16> { return four_halves(a, b); }
fn high_values(a: u32, b: u32) -> vec4<f16> { return four_halves(a, b); }
#endif

// Eight elements for two matrices; those of `hi` are in units of HIGH.
struct HalfEight { lo: vec4<f16>, hi: vec4<f16> }

// K: eight elements of a row. V: eight columns of four keys, two columns at a time.
#if BITS == 16
fn eight_of_query(q: vec4<u32>) -> HalfEight {
    return HalfEight(four_halves(q.x, q.y), four_halves(q.z, q.w));
}
fn eight_of(raw: Raw) -> HalfEight { return eight_of_query(raw); }
fn columns_of(v: Crossed, n: u32) -> HalfEight {
    return HalfEight(
        low_values(v.ab_low[n], v.cd_low[n]),
        high_values(v.ab_high[n], v.cd_high[n]),
    );
}
#elif BITS == 8
fn eight_of_query(q: vec4<u32>) -> HalfEight {
    let a = four_halves(q.x, q.y);
    let b = four_halves(q.z, q.w);
    return HalfEight(a.xzyw, b.xzyw);
}
fn eight_of(raw: Raw) -> HalfEight {
    return HalfEight(four_halves(first_pair(raw.x), second_pair(raw.x)), four_halves(first_pair(raw.y), second_pair(raw.y)));
}
fn columns_of(v: Crossed, n: u32) -> HalfEight {
    let ab = select(v.ab_low[n / 2u], v.ab_high[n / 2u], n % 2u == 1u);
    let cd = select(v.cd_low[n / 2u], v.cd_high[n / 2u], n % 2u == 1u);
    return HalfEight(low_values(first_pair(ab), first_pair(cd)), high_values(second_pair(ab), second_pair(cd)));
}
#else
fn eight_of_query(q: vec4<u32>) -> HalfEight {
    let a = four_halves(q.x, q.y);
    let b = four_halves(q.z, q.w);
    return HalfEight(vec4(a.x, b.x, a.z, b.z), vec4(a.y, b.y, a.w, b.w));
}
fn eight_of(raw: Raw) -> HalfEight {
    return HalfEight(four_halves(first_pair(raw), third_pair(raw)), four_halves(second_pair(raw), fourth_pair(raw)));
}
fn columns_of(v: Crossed, n: u32) -> HalfEight {
    let ab = select(v.ab_low, v.ab_high, n / 2u == 1u);
    let cd = select(v.cd_low, v.cd_high, n / 2u == 1u);
    if n % 2u == 0u {
        return HalfEight(low_values(first_pair(ab), first_pair(cd)), high_values(second_pair(ab), second_pair(cd)));
    }
    return HalfEight(low_values(third_pair(ab), third_pair(cd)), high_values(fourth_pair(ab), fourth_pair(cd)));
}
#endif

// Of the words of four keys those of the first two, and of the others: the lower halves of both, and the upper halves.
struct Crossed { ab_low: Raw, ab_high: Raw, cd_low: Raw, cd_high: Raw }

fn lower(a: Raw, b: Raw) -> Raw { return (a & Raw(0xffffu)) | (b << Raw(16u)); }
fn upper(a: Raw, b: Raw) -> Raw { return (a >> Raw(16u)) | (b & Raw(0xffff0000u)); }
fn cross_keys(a: Raw, b: Raw, c: Raw, d: Raw) -> Crossed {
    return Crossed(lower(a, b), upper(a, b), lower(c, d), upper(c, d));
}

// What a lane loads at once: KY pieces of a row of K, VY of a row of V, up to 16 bytes.
#if BITS == 16
alias KLoad = Raw;
alias VLoad = Raw;
fn k_piece(load: KLoad, y: u32) -> Raw { return load; }
fn v_piece(load: VLoad, y: u32) -> Raw { return load; }
#elif BITS == 8
#if KY == 1
alias KLoad = vec2<u32>;
fn k_piece(load: KLoad, y: u32) -> Raw { return load; }
#else
alias KLoad = vec4<u32>;
fn k_piece(load: KLoad, y: u32) -> Raw { return vec2(load[2u * y], load[2u * y + 1u]); }
#endif
#if VY == 1
alias VLoad = vec2<u32>;
fn v_piece(load: VLoad, y: u32) -> Raw { return load; }
#else
alias VLoad = vec4<u32>;
fn v_piece(load: VLoad, y: u32) -> Raw { return vec2(load[2u * y], load[2u * y + 1u]); }
#endif
#else
#if KY == 2
alias KLoad = vec2<u32>;
#else
alias KLoad = vec4<u32>;
#endif
fn k_piece(load: KLoad, y: u32) -> Raw { return load[y]; }
#if VY == 1
alias VLoad = u32;
fn v_piece(load: VLoad, y: u32) -> Raw { return load; }
#else
alias VLoad = vec2<u32>;
fn v_piece(load: VLoad, y: u32) -> Raw { return load[y]; }
#endif
#endif

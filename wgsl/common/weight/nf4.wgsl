// The NF4 codebook as a tree of selects (an indexed table would go to local memory) or, with BOOK, in workgroup memory.
const CODE_UNIT = 1.0;
fn codebook(q: vec4<u32>) -> vec4<f32> {
    let b0 = (q & vec4<u32>(1u)) != vec4<u32>();
    let b1 = (q & vec4<u32>(2u)) != vec4<u32>();
    let b2 = (q & vec4<u32>(4u)) != vec4<u32>();
    let b3 = (q & vec4<u32>(8u)) != vec4<u32>();
    let v0_0 = select(vec4<f32>(-1.0), vec4<f32>(-0.6961928), b0);
    let v0_1 = select(vec4<f32>(-0.52507305), vec4<f32>(-0.3949175), b0);
    let v0_2 = select(vec4<f32>(-0.28444138), vec4<f32>(-0.18477343), b0);
    let v0_3 = select(vec4<f32>(-0.091050036), vec4<f32>(0.0), b0);
    let v0_4 = select(vec4<f32>(0.0795803), vec4<f32>(0.1609302), b0);
    let v0_5 = select(vec4<f32>(0.2461123), vec4<f32>(0.33791524), b0);
    let v0_6 = select(vec4<f32>(0.44070983), vec4<f32>(0.562617), b0);
    let v0_7 = select(vec4<f32>(0.72295684), vec4<f32>(1.0), b0);
    let v1_0 = select(v0_0, v0_1, b1);
    let v1_1 = select(v0_2, v0_3, b1);
    let v1_2 = select(v0_4, v0_5, b1);
    let v1_3 = select(v0_6, v0_7, b1);
    let v2_0 = select(v1_0, v1_1, b2);
    let v2_1 = select(v1_2, v1_3, b2);
    let v3_0 = select(v2_0, v2_1, b3);
    return v3_0;
}
#if BARE
//!include "common/weight/book_pairs.wgsl"
fn decode(p: Packet, chunk: u32) -> Eight { return by_selects(p[chunk]); }
fn bare_halves(p: Packet, chunk: u32) -> vec4<u32> {
    let q = p[chunk];
    return vec4<u32>(pair_at(q << 7u), pair_at(q >> 1u), pair_at(q >> 9u), pair_at(q >> 17u));
}
fn bare_order(x: vec4<u32>) -> vec4<u32> { return x; }
#elif BOOK
//!include "common/weight/book.wgsl"
const ENTRIES = 16u;
fn decode(p: Packet, chunk: u32) -> Eight {
    let even = looked_up(p[chunk] & 0x0f0f0f0fu);
    let odd = looked_up((p[chunk] >> 4u) & 0x0f0f0f0fu);
    return Eight(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let even = looked_up_pairs(p[chunk] & 0x0f0f0f0fu); // 0 and 4, 2 and 6
    let odd = looked_up_pairs((p[chunk] >> 4u) & 0x0f0f0f0fu);
    return Halves(halves_of(vec2<u32>(even.x, odd.x)) * scale, halves_of(vec2<u32>(even.y, odd.y)) * scale);
}
#endif
#else
fn decode(p: Packet, chunk: u32) -> Eight { return by_selects(p[chunk]); }
#endif
fn by_selects(word: u32) -> Eight {
    let q = vec4<u32>(word);
    return Eight(codebook(q >> vec4<u32>(0u, 4u, 8u, 12u)), codebook(q >> vec4<u32>(16u, 20u, 24u, 28u)));
}

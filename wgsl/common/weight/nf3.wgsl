// The NF3 codebook as a tree of selects (an indexed table would go to local memory) or, with BOOK, in workgroup memory.
//!include "common/weight/three_bits.wgsl"
const CODE_UNIT = 1.0;
fn codebook(q: vec4<u32>) -> vec4<f32> {
    let b0 = (q & vec4<u32>(1u)) != vec4<u32>();
    let b1 = (q & vec4<u32>(2u)) != vec4<u32>();
    let b2 = (q & vec4<u32>(4u)) != vec4<u32>();
    let v0_0 = select(vec4<f32>(-1.0), vec4<f32>(-0.5350227), b0);
    let v0_1 = select(vec4<f32>(-0.2469314), vec4<f32>(0.0), b0);
    let v0_2 = select(vec4<f32>(0.18333753), vec4<f32>(0.38199395), b0);
    let v0_3 = select(vec4<f32>(0.62298566), vec4<f32>(1.0), b0);
    let v1_0 = select(v0_0, v0_1, b1);
    let v1_1 = select(v0_2, v0_3, b1);
    let v2_0 = select(v1_0, v1_1, b2);
    return v2_0;
}
#if BOOK
//!include "common/weight/book.wgsl"
const ENTRIES = 8u;
fn decode_bits(q: u32) -> Eight {
    let even = looked_up(q & 0x07070707u);
    let odd = looked_up((q >> 3u) & 0x07070707u);
    return Eight(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let q = three_bits(p, chunk);
    let even = looked_up_pairs(q & 0x07070707u); // 0 and 4, 2 and 6
    let odd = looked_up_pairs((q >> 3u) & 0x07070707u);
    return Halves(halves_of(vec2<u32>(even.x, odd.x)) * scale, halves_of(vec2<u32>(even.y, odd.y)) * scale);
}
#endif
#else
fn decode_bits(all: u32) -> Eight {
    let q = vec4<u32>(all);
    return Eight(codebook(q >> vec4<u32>(0u, 3u, 8u, 11u)), codebook(q >> vec4<u32>(16u, 19u, 24u, 27u)));
}
#endif
fn decode(p: Packet, chunk: u32) -> Eight { return decode_bits(three_bits(p, chunk)); }

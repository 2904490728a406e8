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
    let first = looked_up((q & 0x00070007u) | ((q << 5u) & 0x07000700u));
    let second = looked_up(((q >> 6u) & 0x00070007u) | ((q >> 1u) & 0x07000700u));
    return Eight(vec4<f32>(first.xy, second.xy), vec4<f32>(first.zw, second.zw));
}
#if HALVES
fn half_weights(p: Packet, chunk: u32, scale: HalfScale) -> Halves {
    let q = three_bits(p, chunk);
    let first = looked_up_pairs((q & 0x00070007u) | ((q << 5u) & 0x07000700u)); // 0 and 4, 1 and 5
    let second = looked_up_pairs(((q >> 6u) & 0x00070007u) | ((q >> 1u) & 0x07000700u));
    return Halves(halves_of(first) * scale, halves_of(second) * scale);
}
#endif
#else
fn decode_bits(all: u32) -> Eight {
    let q = vec4<u32>(all);
    return Eight(codebook(q >> vec4<u32>(0u, 3u, 6u, 9u)), codebook(q >> vec4<u32>(16u, 19u, 22u, 25u)));
}
#endif
fn decode(p: Packet, chunk: u32) -> Eight { return decode_bits(three_bits(p, chunk)); }

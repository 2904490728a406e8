// Tensors whose dtype is a parameter, params.kind = 0 f32, 1 f16, 2 bf16, as words; one specialisation serves all.
//!include "common/bf16.wgsl"

// The two elements of a word of f16 or bf16.
fn two_of(word: u32) -> vec2<f32> {
    if params.kind == 1u { return unpack2x16float(word); }
    return bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u));
}

fn word_of(two: vec2<f32>) -> u32 {
    if params.kind == 1u { return pack2x16float(two); }
    return bf16_bits(two.x) | (bf16_bits(two.y) << 16u);
}

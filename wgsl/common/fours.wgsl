// Tensors of KIND = f32|f16|bf16 in fours of neighbouring elements: Fours is what a buffer holds, widen() and narrow() turn it
// into f32 and back. WGSL has no bf16: two elements share a word.
#if KIND == bf16
//!include "common/bf16.wgsl"
alias Fours = vec2<u32>;
fn widen(raw: Fours) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(raw << vec2(16u), raw & vec2(0xffff0000u)).xzyw);
}
fn narrow(x: vec4<f32>) -> Fours {
    return vec2(bf16_bits(x.x) | (bf16_bits(x.y) << 16u), bf16_bits(x.z) | (bf16_bits(x.w) << 16u));
}
#else
#if KIND == f16
enable f16;
alias Fours = vec4<f16>;
#else
alias Fours = vec4<f32>;
#endif
fn widen(raw: Fours) -> vec4<f32> { return vec4<f32>(raw); }
fn narrow(x: vec4<f32>) -> Fours { return Fours(x); }
#endif

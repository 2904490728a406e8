// The bits of words as halves; src/kernel/spirv.rs leaves the conversions out.
fn two_halves(word: u32) -> vec2<f16> { return vec2<f16>(unpack2x16float(word)); }
fn four_halves(a: u32, b: u32) -> vec4<f16> { return vec4(two_halves(a), two_halves(b)); }

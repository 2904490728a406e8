// Numbers as integers of two signed bytes, 256 · high + low, for dot4I8Packed.
const MOST = 32600.0; // of the integers: two digits hold up to 32639
// The low and the high digits of four numbers: 128 more than each stands in the last bits of its sum with 1.5 · 2²³.
fn digits_of(x: vec4<f32>, rate: f32) -> vec2<u32> {
    let all = bitcast<vec4<u32>>(fma(x, vec4<f32>(rate), vec4<f32>(12582912.0 + 128.0)));
    let even = (all.x & 0xffffu) | (all.z << 16u);
    let odd = (all.y & 0xffffu) | (all.w << 16u);
    let low = (even & 0x00ff00ffu) | ((odd << 8u) & 0xff00ff00u);
    let high = ((even >> 8u) & 0x00ff00ffu) | (odd & 0xff00ff00u);
    return vec2<u32>(low ^ 0x80808080u, high);
}

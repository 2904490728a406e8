// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
//!include "common/wide.wgsl"
fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var i = 0u; i < 10u; i++) {
        let a = wide_mul(0xd2511f53u, c.x);
        let b = wide_mul(0xcd9e8d57u, c.z);
        c = vec4(b.y ^ c.y ^ k.x, b.x, a.y ^ c.w ^ k.y, a.x);
        k += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// Eight halves, two a word, in pairs of those that are four apart: 0 and 4, 1 and 5, 2 and 6, 3 and 7.
fn fours_apart(x: vec4<u32>) -> vec4<u32> {
    let even = (x.xy & vec2<u32>(0xffffu)) | (x.zw << vec2<u32>(16u));
    let odd = (x.xy >> vec2<u32>(16u)) | (x.zw & vec2<u32>(0xffff0000u));
    return vec4<u32>(even.x, odd.x, even.y, odd.y);
}

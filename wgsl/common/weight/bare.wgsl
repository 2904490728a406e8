// Codes as the halves that their bits are, for matrices that are scaled afterwards: bare_halves() gives eight of them, in units of CODE_UNIT and,
// of integers, the last four in units of HIGH times that, as they stay where they are in their words. bare_order() brings activations, which
// are halves too, into the same order.
// Elements 0 and 4, 1 and 5, 2 and 6, 3 and 7.
fn fours_apart(x: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(
        (x.x & 0xffffu) | (x.z << 16u), (x.x >> 16u) | (x.z & 0xffff0000u),
        (x.y & 0xffffu) | (x.w << 16u), (x.y >> 16u) | (x.w & 0xffff0000u),
    );
}

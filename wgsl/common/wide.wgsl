// 32 × 32 → 64 bit products as vec2(low, high): WGSL has 64-bit integers only as an option. Schoolbook on halves.
fn wide_mul(a: u32, b: u32) -> vec2<u32> {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let low = al * bl;
    // Neither sum can pass 32 bits: (2^16 - 1)² + 2 (2^16 - 1) = 2^32 - 1.
    let middle = ah * bl + (low >> 16u);
    let cross = al * bh + (middle & 0xffffu);
    return vec2(a * b, ah * bh + (middle >> 16u) + (cross >> 16u));
}

// Sums of 64-bit values in the same form.
fn wide_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + select(0u, 1u, low < a.x));
}

// A chunk of 3-bit codes, as arrange_three_bits in src/matmul/weight.rs has put them: two codes a byte, 2i at bits 0..2 and 2i + 1 at bits
// 3..5 of byte i, with what does not belong to it above. The first chunk is the first word, the last one the last. The second has even codes
// in the second word and of odd ones the lower bits in the first; the third has odd codes in the second word and of even ones the lower
// bits in the third; the upper bits of both are in the second.
fn three_bits(p: Packet, chunk: u32) -> u32 {
    if chunk == 0u { return p.x; }
    if chunk == 1u { return second_chunk(p.x, p.y); }
    if chunk == 2u { return third_chunk(p.y, p.z); }
    return p.z;
}
fn second_chunk(a: u32, b: u32) -> u32 { return (b & 0x07070707u) | ((a >> 3u) & 0x18181818u) | ((b >> 1u) & 0x20202020u); }
fn third_chunk(b: u32, c: u32) -> u32 { return (b & 0x38383838u) | ((c >> 6u) & 0x03030303u) | ((b >> 5u) & 0x04040404u); }
// The same of the two words that it may lie in, the first of which is 3 · chunk / 4; without a branch, as threads may take different chunks.
fn between(first: u32, next: u32, chunk: u32) -> u32 {
    return select(select(first, second_chunk(first, next), chunk == 1u), third_chunk(first, next), chunk == 2u);
}

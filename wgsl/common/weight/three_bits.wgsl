// A chunk of 3-bit codes, as arrange_three_bits in src/matmul/weight.rs has put them: two codes a byte, 2i at bits 0..2 and 2i + 1 at bits
// 3..5 of byte i. Above them is what does not belong to it: of the last chunk, the lower bits of its even codes in the first word and of its
// odd ones in the second, and the upper bits of both in the third.
// Without a branch, as neighbouring threads may take different chunks.
fn three_bits(p: Packet, chunk: u32) -> u32 {
    let own = select(select(p.x, p.y, chunk == 1u), p.z, chunk == 2u);
    let low = ((p.x >> 6u) & 0x03030303u) | ((p.y >> 3u) & 0x18181818u);
    return select(own, low | ((p.z >> 4u) & 0x04040404u) | ((p.z >> 2u) & 0x20202020u), chunk == 3u);
}

// A chunk of 3-bit codes, as arrange_three_bits in src/matmul/weight.rs has put them: two codes a byte, 2i at bits 0..2 and 2i + 1 at bits
// 3..5 of byte i. Above them is what does not belong to it: see wgsl/common/weight/three_bits.wgsl.
inline uint three_bits(Packet p, uint chunk) {
    uint own = chunk == 0u ? p.x : chunk == 1u ? p.y : p.z;
    uint low = ((p.x >> 6u) & 0x03030303u) | ((p.y >> 3u) & 0x18181818u);
    return chunk == 3u ? low | ((p.z >> 4u) & 0x04040404u) | ((p.z >> 2u) & 0x20202020u) : own;
}

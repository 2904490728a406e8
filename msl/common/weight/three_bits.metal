// A chunk of 3-bit codes, as arrange_three_bits in src/matmul/weight.rs has put them: two codes a byte, 2i at bits 0..2 and 2i + 1 at bits
// 3..5 of byte i, with what does not belong to it above. Where each chunk lies says wgsl/common/weight/three_bits.wgsl.
inline uint three_bits(Packet p, uint chunk) {
    uint second = (p.y & 0x07070707u) | ((p.x >> 3u) & 0x18181818u) | ((p.y >> 1u) & 0x20202020u);
    uint third = (p.y & 0x38383838u) | ((p.z >> 6u) & 0x03030303u) | ((p.y >> 5u) & 0x04040404u);
    return chunk == 0u ? p.x : chunk == 1u ? second : chunk == 2u ? third : p.z;
}

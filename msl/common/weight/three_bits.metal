// A chunk of 3-bit codes: 24 bits that may straddle two of the packet's three words (the fourth is 0). Codes 0..3 come in
// the low half, at bits 0, 3, 6 and 9, codes 4..7 in the high half.
inline uint three_bits(Packet p, uint chunk) {
    uint at = 24u * chunk;
    uint word = at / 32u;
    uint shift = at % 32u;
    // In two steps, as a shift by 32 is none.
    uint q = (p[word] >> shift) | ((p[word + 1u] << 1u) << (31u - shift));
    return (q & 0xfffu) | ((q & 0xfff000u) << 4u);
}

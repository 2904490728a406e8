// A chunk of 3-bit codes: 24 bits that may straddle two of the packet's three words (the fourth is 0). Codes 0..3 come in
// the low half, at bits 0, 3, 6 and 9, codes 4..7 in the high half.
fn three_bits(p: Packet, chunk: u32) -> u32 {
    let word = 24u * chunk / 32u;
    return between(p[word], p[word + 1u], chunk);
}
// The same of the two words that it may lie in.
fn between(low: u32, high: u32, chunk: u32) -> u32 {
    let shift = 24u * chunk % 32u;
    // In two steps, as a shift by 32 is none.
    let q = (low >> shift) | ((high << 1u) << (31u - shift));
    return (q & 0xfffu) | ((q & 0xfff000u) << 4u);
}

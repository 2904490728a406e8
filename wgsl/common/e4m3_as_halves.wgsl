// The FP8 E4M3 codes in the upper bytes of a word's halves, as the halves v·2⁻⁸: the exponent's bias is 8 less there.
fn signs_and_sizes(word: u32) -> u32 { return ((word >> 1u) & 0x3f803f80u) | (word & 0x80008000u); }

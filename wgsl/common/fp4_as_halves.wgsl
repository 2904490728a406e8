// Of a word of eight arranged FP4 codes (arrange_fp4 in src/matmul/weight.rs) two codes, as the halves v·2⁻¹⁴: 0 and 4, 1 and 5, 2 and 6,
// 3 and 7. One or two shifts bring their signs to bits 31 and 15 and their exponents and mantissas to bits 27..25 and 11..9.
fn first_pair(word: u32) -> u32 { return word & 0x8e008e00u; }
fn second_pair(word: u32) -> u32 { return (word << 3u) & 0x8e008e00u; }
#if MULTIPLIES
// One product shifts signs and sizes. What it leaves of each where the other was shifted to is masked, and far enough that nothing is carried.
fn third_pair(word: u32) -> u32 { return ((word & 0x40384038u) * 66u) & 0x8e008e00u; }
fn fourth_pair(word: u32) -> u32 { return ((word & 0x20072007u) * 516u) & 0x8e008e00u; }
#else
fn third_pair(word: u32) -> u32 { return ((word << 6u) & 0x0e000e00u) | ((word << 1u) & 0x80008000u); }
fn fourth_pair(word: u32) -> u32 { return ((word << 9u) & 0x0e000e00u) | ((word << 2u) & 0x80008000u); }
#endif

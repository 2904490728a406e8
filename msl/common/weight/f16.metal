// f16 codes, two a word.
constant constexpr float CODE_UNIT = 1.0f;
inline Eight decode(Packet p, uint) { return Eight{float4(halves(p.x), halves(p.y)), float4(halves(p.z), halves(p.w))}; }

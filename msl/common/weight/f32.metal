// f32 codes: a packet is two loads of 16 bytes.
constant constexpr float CODE_UNIT = 1.0f;
inline Eight decode(Packet p, uint) { return Eight{p.lo, p.hi}; }

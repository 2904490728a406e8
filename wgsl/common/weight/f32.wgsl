// f32 codes: a packet is two loads of 16 bytes.
const CODE_UNIT = 1.0;
fn decode(p: Packet, chunk: u32) -> Eight {
    return Eight(bitcast<vec4<f32>>(p.lo), bitcast<vec4<f32>>(p.hi));
}

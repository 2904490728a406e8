// f16 codes, two a word.
const CODE_UNIT = 1.0;
fn decode(p: Packet, chunk: u32) -> Eight {
    return Eight(
        vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y)),
        vec4<f32>(unpack2x16float(p.z), unpack2x16float(p.w)),
    );
}

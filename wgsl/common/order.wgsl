// Floats as u32 keys in the same order, so that comparing, counting and searching need no float arithmetic that a
// driver's fast math could bend: −0 and +0 share a key, −∞ has the least, and NaN has 0, which no number has.
fn order_key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let magnitude = bits & 0x7fffffffu;
    let key = select(0x80000000u + magnitude, 0x80000000u - magnitude, bits >> 31u == 1u);
    return select(key, 0u, magnitude > 0x7f800000u);
}

fn order_value(key: u32) -> f32 {
    return bitcast<f32>(select(0x80000000u - key + 0x80000000u, key - 0x80000000u, key >= 0x80000000u));
}

// The bits of the f16 nearest to x, ties to even.
fn half_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let size = bits & 0x7fffffffu;
    if size >= 0x47800000u { return sign | 0x7c00u; }
    if size >= 0x38800000u { return sign | ((size - 0x38000000u + 0xfffu + ((size >> 13u) & 1u)) >> 13u); }
    let exponent = size >> 23u;
    if exponent < 102u { return sign; }
    let mantissa = (size & 0x7fffffu) | 0x800000u;
    let shift = 126u - exponent;
    let rest = mantissa & ((1u << shift) - 1u);
    let code = mantissa >> shift;
    let middle = 1u << (shift - 1u);
    return sign | (code + select(0u, 1u, rest > middle || (rest == middle && (code & 1u) == 1u)));
}

//! `f32`, `f16` and `bf16`: unscaled floating point, rounded to nearest, ties to even (by the `half` crate).

use super::{Codec, Params, ScaleFormat};
use half::{bf16, f16};

pub(super) static F32: Codec = Codec {
    name: "f32",
    bits: 32,
    scales: ScaleFormat::None,
    zeros: false,
    fit: |_, _, _| Some(Params::default()),
    encode: |row, _, codes| encode(row, codes, f32::to_bits),
    decode: |code, _, _| f32::from_bits(code),
};

pub(super) static F16: Codec = Codec {
    name: "f16",
    bits: 16,
    scales: ScaleFormat::None,
    zeros: false,
    fit: |row, _, _| all_finite(row, |v| f16::from_f32(v).is_finite()),
    encode: |row, _, codes| encode(row, codes, |v| u32::from(f16::from_f32(v).to_bits())),
    decode: |code, _, _| f16::from_bits(code as u16).to_f32(),
};

pub(super) static BF16: Codec = Codec {
    name: "bf16",
    bits: 16,
    scales: ScaleFormat::None,
    zeros: false,
    fit: |row, _, _| all_finite(row, |v| bf16::from_f32(v).is_finite()),
    encode: |row, _, codes| encode(row, codes, |v| u32::from(bf16::from_f32(v).to_bits())),
    decode: |code, _, _| bf16::from_bits(code as u16).to_f32(),
};

fn encode(row: &[f32], codes: &mut [u32], bits: impl Fn(f32) -> u32) {
    for (code, &value) in codes.iter_mut().zip(row) {
        *code = bits(value);
    }
}

/// A finite f32 may round to an infinity in the narrower format.
fn all_finite(row: &[f32], finite: impl Fn(f32) -> bool) -> Option<Params> {
    row.iter().all(|&value| finite(value)).then(Params::default)
}

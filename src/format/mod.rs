//! Number formats of weight matrices: quantising, packing and unpacking on the CPU.
//!
//! A weight matrix `W` is `[n, k]`, row-major; row `i` holds the weights of output feature `i`, and the
//! groups that share a scale run along `k`. See [`PackedMatrix`] for the memory layout.
//!
//! | format  | bits | code                        | weight            | parameters (f16, one a group) |
//! |---------|------|-----------------------------|-------------------|-------------------------------|
//! | `f32`   | 32   | IEEE 754 binary32           | the value         | none                          |
//! | `f16`   | 16   | IEEE 754 binary16           | the value         | none                          |
//! | `bf16`  | 16   | upper half of a binary32    | the value         | none                          |
//! | `fp4`   | 4    | OCP E2M1, sign in bit 3     | `e2m1(q) * s`     | scale `s`                     |
//! | `int4`  | 4    | offset binary, 0..=15       | `(q - 8) * s`     | scale `s`                     |
//! | `int4z` | 4    | unsigned, 0..=15            | `(q - z) * s`     | scale `s`, real zero point `z`|
//! | `int8`  | 8    | two's complement            | `q * s`           | scale `s`                     |
//!
//! Sources: E2M1 and its rounding are those of the *OCP Microscaling Formats (MX) Specification v1.0*,
//! section 5.3.3 (the scale here is f16 and the group size free, so this is neither MXFP4 nor NVFP4);
//! symmetric 4-bit groups follow GPTQ (Frantar et al., 2022) and Marlin (Frantar et al., 2024), asymmetric
//! ones with a non-integer zero point follow HQQ (Badri and Shaji, 2023).

mod dense;
mod fp4;
mod int4;
mod int8;
mod packed;
mod quantise;
mod symmetric;
#[cfg(test)]
mod tests;

pub use packed::PackedMatrix;

use crate::error::{Error, Result};
use half::f16;

/// How one weight is stored. See the [module documentation](self) for the table of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// IEEE 754 binary32, unscaled.
    F32,
    /// IEEE 754 binary16, unscaled.
    F16,
    /// bfloat16, unscaled.
    Bf16,
    /// OCP E2M1 with one f16 scale a group.
    Fp4,
    /// Symmetric 4-bit integer, `(q - 8) * s`.
    Int4,
    /// Asymmetric 4-bit integer, `(q - z) * s` with a real-valued zero point.
    Int4Zero,
    /// Symmetric 8-bit integer, `q * s`.
    Int8,
}

impl Format {
    /// Every format, in declaration order.
    pub const ALL: &'static [Format] =
        &[Format::F32, Format::F16, Format::Bf16, Format::Fp4, Format::Int4, Format::Int4Zero, Format::Int8];

    /// The short name, as [`Format::parse`] reads it.
    pub fn name(self) -> &'static str {
        self.codec().name
    }

    /// The format of this [`name`](Format::name); `None` for any other string.
    pub fn parse(name: &str) -> Option<Format> {
        Format::ALL.iter().copied().find(|f| f.name() == name)
    }

    /// Bits of one code: 4, 8, 16 or 32, so a code never straddles two words.
    pub fn bits(self) -> usize {
        self.codec().bits
    }

    /// Whether the format has group scales.
    pub fn is_quantised(self) -> bool {
        self.codec().quantised
    }

    /// Whether the format has group zero points.
    pub fn has_zeros(self) -> bool {
        self.codec().zeros
    }

    /// The only place that tells formats apart; everything else goes through the table entry.
    fn codec(self) -> &'static Codec {
        match self {
            Format::F32 => &dense::F32,
            Format::F16 => &dense::F16,
            Format::Bf16 => &dense::BF16,
            Format::Fp4 => &fp4::CODEC,
            Format::Int4 => &int4::SYMMETRIC,
            Format::Int4Zero => &int4::ASYMMETRIC,
            Format::Int8 => &int8::CODEC,
        }
    }
}

/// How many consecutive elements of a row share a scale. Ignored by the dense formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// This many elements: a multiple of 16, at most 128, that divides `k`.
    Size(usize),
    /// The whole row.
    WholeK,
}

impl Group {
    /// The group length in elements for rows of `k` elements; 0 for a dense format.
    fn resolve(self, op: &'static str, format: Format, k: usize) -> Result<usize> {
        match self {
            _ if !format.is_quantised() => Ok(0),
            Group::WholeK => Ok(k),
            Group::Size(size) if size == 0 || !size.is_multiple_of(16) || size > 128 => {
                Err(Error::value(op, "group", size, "a multiple of 16 from 16 to 128"))
            }
            Group::Size(size) if !k.is_multiple_of(size) => {
                Err(Error::value(op, "group", size, format!("a divisor of k = {k}")))
            }
            Group::Size(size) => Ok(size),
        }
    }
}

/// How the scale (and the zero point) of a group is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleSearch {
    /// The element of largest magnitude maps to the largest code (`int4z`: the range maps to 0..=15).
    AbsMax,
    /// The least squared error among clipped scales and least-squares refits; never worse than `AbsMax`.
    Mse,
}

/// The stored parameters of one group.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Params {
    scale: f16,
    zero: f16,
}

/// One format's entry in the table. The functions take whole groups, so the loops inside are monomorphic.
struct Codec {
    name: &'static str,
    bits: usize,
    quantised: bool,
    zeros: bool,
    /// Chooses the parameters of a group of finite values; `None` if they would not be finite.
    fit: fn(&[f32], ScaleSearch) -> Option<Params>,
    /// Writes the code nearest to each value, with these parameters.
    encode: fn(&[f32], Params, &mut [u32]),
    /// The weight of a code, given the scale and the zero point in f32.
    decode: fn(code: u32, scale: f32, zero: f32) -> f32,
}

/// Rounds a scale (not negative) of a group with a non-zero value to f16; `None` on overflow. An underflow
/// gives the least positive f16: with a scale of 0 the group would lose all its information.
fn round_scale(scale: f32) -> Option<f16> {
    let rounded = f16::from_f32(scale);
    if rounded == f16::ZERO {
        return Some(f16::MIN_POSITIVE_SUBNORMAL);
    }
    rounded.is_finite().then_some(rounded)
}

/// Sums `term` over the group in f64, in eight independent lanes that the compiler can vectorise.
#[inline(always)]
fn lane_sum(group: &[f32], term: impl Fn(f32) -> f64) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (chunks, rest) = group.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += term(value);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&value| term(value)).sum::<f64>()
}

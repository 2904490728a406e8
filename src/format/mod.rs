//! Number formats of weight matrices: quantising, packing and unpacking on the CPU.
//!
//! A weight matrix `W` is `[n, k]`, row-major; row `i` holds the weights of output feature `i`, and the
//! groups that share a scale run along `k`. See [`PackedMatrix`] for the memory layout.
//!
//! | format  | bits | code                        | weight            | parameters of a group          |
//! |---------|------|-----------------------------|-------------------|--------------------------------|
//! | `f32`   | 32   | IEEE 754 binary32           | the value         | none                           |
//! | `f16`   | 16   | IEEE 754 binary16           | the value         | none                           |
//! | `bf16`  | 16   | upper half of a binary32    | the value         | none                           |
//! | `fp4`   | 4    | OCP E2M1, sign in bit 3     | `e2m1(q) * s`     | f16 scale `s`                  |
//! | `int4`  | 4    | offset binary, 0..=15       | `(q - 8) * s`     | f16 scale `s`                  |
//! | `int4z` | 4    | unsigned, 0..=15            | `(q - z) * s`     | f16 scale `s`, f16 zero `z`    |
//! | `int8`  | 8    | two's complement            | `q * s`           | f16 scale `s`                  |
//! | `int8z` | 8    | unsigned, 0..=255           | `(q - z) * s`     | f16 scale `s`, f16 zero `z`    |
//! | `e4m3`  | 8    | OCP FP8 E4M3                | `e4m3(q) * s`     | f16 scale `s`                  |
//! | `e5m2`  | 8    | OCP FP8 E5M2                | `e5m2(q) * s`     | f16 scale `s`                  |
//! | `nf4`   | 4    | index of the NF4 codebook   | `nf4(q) * s`      | f16 scale `s`                  |
//! | `int3`  | 3    | offset binary, 0..=7        | `(q - 4) * s`     | f16 scale `s`                  |
//! | `nf3`   | 3    | index of the NF3 codebook   | `nf3(q) * s`      | f16 scale `s`                  |
//! | `int2`  | 2    | offset binary, 0..=3        | `(q - 2) * s`     | f16 scale `s`                  |
//! | `mxfp4` | 4    | OCP E2M1                    | `e2m1(q) * 2^(e-127)` | E8M0 byte `e`              |
//! | `nvfp4` | 4    | OCP E2M1                    | `e2m1(q) * e4m3(b) * t` | E4M3 byte `b`; one f32 `t` for the tensor |
//!
//! Sources: E2M1, E4M3, E5M2, E8M0 and MXFP4 are those of the *OCP Microscaling Formats (MX) Specification v1.0*; NVFP4
//! is NVIDIA's; NormalFloat follows QLoRA (Dettmers et al., 2023); symmetric integer groups follow GPTQ (Frantar et al.,
//! 2022) and Marlin (Frantar et al., 2024), asymmetric ones with a non-integer zero point follow HQQ (Badri and Shaji,
//! 2023).

mod affine;
mod dense;
mod fp4;
mod fp8;
mod int8;
mod normal;
mod offset;
mod packed;
mod quantise;
#[cfg(test)]
mod refusal_tests;
mod scale;
mod symmetric;
#[cfg(test)]
mod tests;

pub use packed::PackedMatrix;
pub(crate) use packed::Shape;
pub use scale::ScaleFormat;
use scale::Scaling;

use crate::error::{Error, Result};

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
    /// Asymmetric 8-bit integer, `(q - z) * s` with a real-valued zero point.
    Int8Zero,
    /// OCP FP8 E4M3 with one f16 scale a group.
    E4m3,
    /// OCP FP8 E5M2 with one f16 scale a group.
    E5m2,
    /// 4-bit NormalFloat with one f16 scale a group.
    Nf4,
    /// Symmetric 3-bit integer, `(q - 4) * s`.
    Int3,
    /// 3-bit NormalFloat with one f16 scale a group.
    Nf3,
    /// Symmetric 2-bit integer, `(q - 2) * s`.
    Int2,
    /// OCP MXFP4: E2M1 in groups of 32 whose scales are powers of two.
    Mxfp4,
    /// NVFP4: E2M1 in groups of 16 with E4M3 scales, and one f32 scale for the tensor.
    Nvfp4,
}

impl Format {
    /// Every format, in declaration order.
    pub const ALL: &'static [Format] = &[
        Format::F32,
        Format::F16,
        Format::Bf16,
        Format::Fp4,
        Format::Int4,
        Format::Int4Zero,
        Format::Int8,
        Format::Int8Zero,
        Format::E4m3,
        Format::E5m2,
        Format::Nf4,
        Format::Int3,
        Format::Nf3,
        Format::Int2,
        Format::Mxfp4,
        Format::Nvfp4,
    ];

    /// The short name, as [`Format::parse`] reads it.
    pub fn name(self) -> &'static str {
        self.codec().name
    }

    /// The format of this [`name`](Format::name); `None` for any other string.
    pub fn parse(name: &str) -> Option<Format> {
        Format::ALL.iter().copied().find(|f| f.name() == name)
    }

    /// Bits of one code: 2, 3, 4, 8, 16 or 32. Only codes of 3 bits straddle words: 32 of them take three.
    pub fn bits(self) -> usize {
        self.codec().bits
    }

    /// Whether the format has group scales.
    pub fn is_quantised(self) -> bool {
        self.scales() != ScaleFormat::None
    }

    /// Whether the format has group zero points.
    pub fn has_zeros(self) -> bool {
        self.codec().zeros
    }

    /// How the scales of groups are stored.
    pub fn scales(self) -> ScaleFormat {
        self.codec().scales
    }

    /// The only group that the format has, by its definition; `None` if groups are free.
    pub fn fixed_group(self) -> Option<usize> {
        match self.scales() {
            ScaleFormat::E8m0 => Some(32),
            ScaleFormat::E4m3 => Some(16),
            ScaleFormat::None | ScaleFormat::F16 => None,
        }
    }

    /// The format's own group, or groups of 32.
    pub fn default_group(self) -> Group {
        Group::Size(self.fixed_group().unwrap_or(32))
    }

    /// Whether the format has groups like these in rows of `k` elements.
    pub(crate) fn allows(self, group: Group, k: usize) -> bool {
        group.resolve("", self, k).is_ok()
    }

    /// The values of the codes, where they follow no formula.
    pub(crate) fn codebook(self) -> Option<&'static [f32]> {
        match self {
            Format::Nf4 => Some(&normal::NF4_VALUES),
            Format::Nf3 => Some(&normal::NF3_VALUES),
            _ => None,
        }
    }

    /// Whether every code is a number; FP8 has codes for NaN and infinity.
    pub(crate) fn is_finite(self, code: u32) -> bool {
        match self {
            Format::E4m3 => fp8::e4m3_is_finite(code),
            Format::E5m2 => fp8::e5m2_is_finite(code),
            _ => true,
        }
    }

    /// The only place that tells formats apart; nearly everything else goes through the table entry.
    fn codec(self) -> &'static Codec {
        match self {
            Format::F32 => &dense::F32,
            Format::F16 => &dense::F16,
            Format::Bf16 => &dense::BF16,
            Format::Fp4 => &fp4::FP4,
            Format::Int4 => &offset::INT4,
            Format::Int4Zero => &affine::INT4,
            Format::Int8 => &int8::CODEC,
            Format::Int8Zero => &affine::INT8,
            Format::E4m3 => &fp8::E4M3,
            Format::E5m2 => &fp8::E5M2,
            Format::Nf4 => &normal::NF4,
            Format::Int3 => &offset::INT3,
            Format::Nf3 => &normal::NF3,
            Format::Int2 => &offset::INT2,
            Format::Mxfp4 => &fp4::MXFP4,
            Format::Nvfp4 => &fp4::NVFP4,
        }
    }
}

/// How many consecutive elements of a row share a scale. Ignored by the dense formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// This many elements: a multiple of 16 (3-bit formats: of 32), at most 128, that divides `k`. MXFP4 has groups of
    /// 32 only, NVFP4 of 16.
    Size(usize),
    /// The whole row; not for MXFP4 and NVFP4.
    WholeK,
}

impl Group {
    /// The group length in elements for rows of `k` elements; 0 for a dense format.
    fn resolve(self, op: &'static str, format: Format, k: usize) -> Result<usize> {
        if !format.is_quantised() {
            return Ok(0);
        }
        let name = format.name();
        if let Some(only) = format.fixed_group()
            && self != Group::Size(only)
        {
            return Err(Error::value(op, "group", self, format!("Size({only}) for {name}")));
        }
        // Words of 3-bit codes come in threes, which hold 32 elements; no scale changes inside.
        let unit = if format.bits() == 3 { 32 } else { 16 };
        match self {
            Group::WholeK => Ok(k),
            Group::Size(size) if size == 0 || !size.is_multiple_of(unit) || size > 128 => {
                let want = format!("a multiple of {unit} from {unit} to 128 for {name}");
                Err(Error::value(op, "group", size, want))
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
    /// The element of largest magnitude maps to the largest code (`int4z`, `int8z`: the range maps to
    /// all codes; both FP8 formats: to 448).
    AbsMax,
    /// The least squared error among clipped scales and least-squares refits; never worse than `AbsMax`.
    Mse,
}

/// The parameters of one group, rounded as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Params {
    /// The product of all scales.
    scale: f32,
    zero: f32,
}

/// One format's entry in the table. The functions take whole groups, so the loops inside are monomorphic.
struct Codec {
    name: &'static str,
    bits: usize,
    scales: ScaleFormat,
    zeros: bool,
    /// Chooses the parameters of a group of finite values; `None` if they would not be finite.
    fit: fn(&[f32], ScaleSearch, Scaling) -> Option<Params>,
    /// Writes the code nearest to each value, with these parameters.
    encode: fn(&[f32], Params, &mut [u32]),
    /// The weight of a code, given the scale and the zero point in f32.
    decode: fn(code: u32, scale: f32, zero: f32) -> f32,
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

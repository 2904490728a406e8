//! How the scales of groups are stored.

use super::fp8::E4m3;
use super::symmetric::Grid;
use half::f16;

/// How the scale of a group is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleFormat {
    /// Dense formats have no scale.
    None,
    /// IEEE 754 binary16.
    F16,
    /// A byte `e` that stands for `2^(e - 127)` (OCP MX v1.0, section 5.4.1).
    E8m0,
    /// An FP8 E4M3 byte, not negative, that a scale of the whole tensor multiplies (NVFP4).
    E4m3,
}

impl ScaleFormat {
    /// Bytes of one scale.
    pub fn bytes(self) -> usize {
        match self {
            ScaleFormat::None => 0,
            ScaleFormat::F16 => 2,
            ScaleFormat::E8m0 | ScaleFormat::E4m3 => 1,
        }
    }

    /// The largest byte that [`PackedMatrix::from_byte_scales`](super::PackedMatrix::from_byte_scales) takes: 448, or
    /// 2^113, up to which products with codes stay finite in f32 on every path.
    pub fn largest_byte(self) -> u8 {
        match self {
            ScaleFormat::E8m0 => 240,
            _ => 0x7e,
        }
    }
}

/// The largest effective scale (see [`ScaleFormat::largest_byte`]).
pub(super) const LARGEST: f32 = f32::from_bits((127 + 113) << 23);
/// The least tensor scale, which keeps its products with E4M3 bytes away from f32's subnormals.
const LEAST_TENSOR: f32 = f32::from_bits((127 - 100) << 23);

/// The rounding of scales in one matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scaling {
    pub format: ScaleFormat,
    /// The tensor scale; 1 if the format has none.
    pub tensor: f32,
}

impl Scaling {
    pub fn new(format: ScaleFormat, values: &[f32]) -> Self {
        if format != ScaleFormat::E4m3 {
            return Scaling { format, tensor: 1.0 };
        }
        // The largest magnitude gets the largest scale and the largest E2M1 code. Rounded up to 16 mantissa bits, so that
        // tensor scale, scale and code multiply exactly in f32.
        let full = values.iter().fold(0.0f32, |m, v| m.max(v.abs())) / (448.0 * 6.0);
        let tensor = f32::from_bits((full.to_bits() + 0xff) & !0xff);
        let tensor = if full == 0.0 { 1.0 } else { tensor.max(LEAST_TENSOR) };
        Scaling { format, tensor }
    }

    /// Rounds a scale (not negative) of a group with a non-zero value to what can be stored; `None` on overflow.
    /// An underflow gives the least positive scale: with a scale of 0 the group would lose all its information.
    pub fn round(self, scale: f32) -> Option<f32> {
        let rounded = match self.format {
            ScaleFormat::None | ScaleFormat::F16 => return round_f16(scale).map(f16::to_f32),
            // OCP MX v1.0, section 6.3: the largest magnitude's power of two becomes that of the largest code, so with
            // absmax = 6 * scale the floor of log2(absmax) - 2.
            ScaleFormat::E8m0 => f32::from_bits((scale * 1.5).to_bits() & 0x7f80_0000).max(f32::MIN_POSITIVE),
            ScaleFormat::E4m3 => E4m3::nearest(scale / self.tensor).max(1.0 / 512.0) * self.tensor,
        };
        (rounded <= LARGEST).then_some(rounded)
    }

    /// The byte of a scale that [`round`](Self::round) made, or of an all-zero group's scale 0.
    pub fn byte(self, scale: f32) -> u8 {
        match self.format {
            ScaleFormat::E8m0 => (scale.to_bits() >> 23) as u8,
            _ => E4m3::code(E4m3::nearest(scale / self.tensor)) as u8,
        }
    }

    /// The scale of a byte.
    pub fn value(self, byte: u8) -> f32 {
        match self.format {
            // 2^-127 is subnormal: half of the least normal number.
            ScaleFormat::E8m0 if byte == 0 => f32::MIN_POSITIVE / 2.0,
            ScaleFormat::E8m0 => f32::from_bits(u32::from(byte) << 23),
            _ => E4m3::value(u32::from(byte)) * self.tensor,
        }
    }
}

/// See [`Scaling::round`].
pub(super) fn round_f16(scale: f32) -> Option<f16> {
    let rounded = f16::from_f32(scale);
    if rounded == f16::ZERO {
        return Some(f16::MIN_POSITIVE_SUBNORMAL);
    }
    rounded.is_finite().then_some(rounded)
}

//! `e4m3` (no infinity; NaN is 0x7f and 0xff) and `e5m2`: the 8-bit floats of *FP8 Formats for Deep Learning*
//! (Micikevicius et al., 2022) and OCP MX v1.0, sections 5.3.1 and 5.3.2.

use super::symmetric::{self, Grid, round_to_step};
use super::{Codec, ScaleFormat};
use half::f16;

pub(super) static E4M3: Codec = symmetric::codec::<E4m3>("e4m3", 8, ScaleFormat::F16);
pub(super) static E5M2: Codec = symmetric::codec::<E5m2>("e5m2", 8, ScaleFormat::F16);

pub(super) struct E4m3;
struct E5m2;

/// Rounds to `bits` mantissa bits, ties to even, in magnitudes up to `largest`; below `least_normal` the grid is uniform.
#[inline(always)]
fn nearest(x: f32, bits: i32, least_normal: f32, largest: f32) -> f32 {
    let magnitude = x.abs().min(largest);
    let binade = f32::from_bits(magnitude.to_bits() & 0x7f80_0000).max(least_normal);
    let ulp = f32::from_bits(((127 - bits) as u32) << 23);
    round_to_step(magnitude, binade * ulp).copysign(x)
}

impl Grid for E4m3 {
    const MAX: f32 = 448.0;

    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        nearest(x, 3, 1.0 / 64.0, 448.0)
    }

    #[inline(always)]
    fn code(value: f32) -> u32 {
        let bits = value.abs().to_bits();
        // A normal number's exponent loses the difference of the biases, 127 - 7.
        let normal = (bits >> 20).wrapping_sub(120 << 3);
        let subnormal = (value.abs() * 512.0) as u32;
        let magnitude = if value.abs() < 1.0 / 64.0 { subnormal } else { normal };
        magnitude | (u32::from(value.is_sign_negative()) << 7)
    }

    fn value(code: u32) -> f32 {
        let (exponent, mantissa) = (code >> 3 & 15, (code & 7) as f32);
        let magnitude = match (exponent, code & 7) {
            (0, _) => mantissa / 512.0,
            (15, 7) => f32::NAN,
            _ => (8.0 + mantissa) * f32::from_bits((exponent + 127 - 10) << 23),
        };
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    }
}

impl Grid for E5m2 {
    /// Not the largest code, 57344: its scales would be f16 subnormals for the weights of real models. A float's
    /// precision does not depend on where in its range it is used.
    const MAX: f32 = 448.0;

    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        nearest(x, 2, 1.0 / 16384.0, 57344.0)
    }

    /// The upper byte of a half.
    #[inline(always)]
    fn code(value: f32) -> u32 {
        u32::from(f16::from_f32(value).to_bits() >> 8)
    }

    fn value(code: u32) -> f32 {
        f16::from_bits((code << 8) as u16).to_f32()
    }
}

/// Whether the byte is a number; the formats have codes that are not.
pub(super) fn e4m3_is_finite(code: u32) -> bool {
    code & 0x7f != 0x7f
}

/// As [`e4m3_is_finite`].
pub(super) fn e5m2_is_finite(code: u32) -> bool {
    code & 0x7c != 0x7c
}

//! `fp4`, `mxfp4` and `nvfp4`: OCP E2M1 (one sign, two exponent and one mantissa bit; no infinity, no NaN). They differ
//! in their scales.

use super::symmetric::{self, Grid, round_to_step};
use super::{Codec, ScaleFormat};

pub(super) static FP4: Codec = symmetric::codec::<E2m1>("fp4", 4, ScaleFormat::F16);
pub(super) static MXFP4: Codec = symmetric::codec::<E2m1>("mxfp4", 4, ScaleFormat::E8m0);
pub(super) static NVFP4: Codec = symmetric::codec::<E2m1>("nvfp4", 4, ScaleFormat::E4m3);

/// Magnitudes of the codes 0..=7 (OCP MX v1.0, table 5); codes 8..=15 are their negatives.
const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

struct E2m1;

impl Grid for E2m1 {
    const MAX: f32 = 6.0;

    /// The grid is uniform inside each binade, so rounding to its step, ties to even multiples, is rounding
    /// to the nearest code, ties to an even mantissa. Branch-free, so that it vectorises.
    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        let magnitude = x.abs().min(6.0);
        let step = if magnitude < 2.0 {
            0.5
        } else if magnitude < 4.0 {
            1.0
        } else {
            2.0
        };
        round_to_step(magnitude, step).copysign(x)
    }

    /// Keeps the sign of zero, as the OCP conversion does.
    #[inline(always)]
    fn code(value: f32) -> u32 {
        let magnitude = value.abs();
        let above = |bound: f32| u32::from(magnitude >= bound);
        let index = above(0.5) + above(1.0) + above(1.5) + above(2.0) + above(3.0) + above(4.0) + above(6.0);
        index | (u32::from(value.is_sign_negative()) << 3)
    }

    fn value(code: u32) -> f32 {
        let magnitude = MAGNITUDES[(code & 7) as usize];
        if code & 8 == 0 { magnitude } else { -magnitude }
    }
}

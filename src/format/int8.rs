//! `int8`: a two's complement byte.

use super::symmetric::{self, Grid, round_even};
use super::{Codec, ScaleFormat};

pub(super) static CODEC: Codec = symmetric::codec::<Byte>("int8", 8, ScaleFormat::F16);

struct Byte;

impl Grid for Byte {
    const MAX: f32 = 127.0;

    /// Never -128, which keeps the code range symmetric; decoding accepts it.
    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        round_even(x.clamp(-127.0, 127.0))
    }

    #[inline(always)]
    fn code(value: f32) -> u32 {
        u32::from(value as i8 as u8)
    }

    fn value(code: u32) -> f32 {
        f32::from(code as u8 as i8)
    }
}

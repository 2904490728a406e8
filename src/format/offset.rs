//! `int4`, `int3` and `int2`: integers in offset binary, `w = (q - 2^(bits-1)) * s`.

use super::symmetric::{self, Grid, round_even};
use super::{Codec, ScaleFormat};

pub(super) static INT4: Codec = codec::<OffsetBinary<4>>("int4", 4);
pub(super) static INT3: Codec = codec::<OffsetBinary<3>>("int3", 3);
pub(super) static INT2: Codec = codec::<OffsetBinary<2>>("int2", 2);

const fn codec<G: Grid>(name: &'static str, bits: usize) -> Codec {
    symmetric::codec::<G>(name, bits, ScaleFormat::F16)
}

struct OffsetBinary<const BITS: u8>;

impl<const BITS: u8> OffsetBinary<BITS> {
    const HALF: f32 = (1u32 << (BITS - 1)) as f32;
}

impl<const BITS: u8> Grid for OffsetBinary<BITS> {
    /// The positive end: `AbsMax` never uses the lowest code.
    const MAX: f32 = Self::HALF - 1.0;
    /// Two bits cut a normal distribution best when the scale is about half the largest magnitude.
    const FIRST_FACTOR: u8 = if BITS == 2 { 10 } else { 18 };

    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        round_even(x.clamp(-Self::HALF, Self::HALF - 1.0))
    }

    #[inline(always)]
    fn code(value: f32) -> u32 {
        (value + Self::HALF) as u32
    }

    fn value(code: u32) -> f32 {
        code as f32 - Self::HALF
    }
}

//! `nf4` and `nf3`: the NormalFloat codebooks of *QLoRA* (Dettmers et al., 2023), quantiles of a normal distribution
//! scaled to -1..=1, with an exact 0.

use super::symmetric::{self, Grid};
use super::{Codec, ScaleFormat};

pub(super) static NF4: Codec = symmetric::codec::<Nf4>("nf4", 4, ScaleFormat::F16);
pub(super) static NF3: Codec = symmetric::codec::<Nf3>("nf3", 3, ScaleFormat::F16);

/// As bitsandbytes has it.
pub(super) const NF4_VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The same construction with three bits.
pub(super) const NF3_VALUES: [f32; 8] =
    [-1.0, -0.535_022_7, -0.246_931_4, 0.0, 0.183_337_53, 0.381_993_95, 0.622_985_66, 1.0];

struct Nf4;
struct Nf3;

/// The nearest entry of an ascending table; of two equally near ones the lower.
#[inline(always)]
fn index<const N: usize>(table: &[f32; N], x: f32) -> usize {
    (1..N).map(|i| usize::from(x > 0.5 * (table[i - 1] + table[i]))).sum()
}

macro_rules! grid {
    ($name:ident, $table:ident) => {
        impl Grid for $name {
            const MAX: f32 = 1.0;

            #[inline(always)]
            fn nearest(x: f32) -> f32 {
                $table[index(&$table, x)]
            }

            #[inline(always)]
            fn code(value: f32) -> u32 {
                index(&$table, value) as u32
            }

            fn value(code: u32) -> f32 {
                $table.get(code as usize).copied().unwrap_or(0.0)
            }
        }
    };
}

grid!(Nf4, NF4_VALUES);
grid!(Nf3, NF3_VALUES);

//! Scale fitting and coding shared by the formats without a zero point: `w = grid value * scale`.

use super::{Codec, Params, ScaleFormat, ScaleSearch, Scaling, lane_sum};

pub(super) const fn codec<G: Grid>(name: &'static str, bits: usize, scales: ScaleFormat) -> Codec {
    Codec { name, bits, scales, zeros: false, fit: fit::<G>, encode: encode::<G>, decode: decode::<G> }
}

/// The unscaled values that a symmetric format can represent.
pub(super) trait Grid {
    /// The grid value to which `ScaleSearch::AbsMax` maps the largest magnitude of a group.
    const MAX: f32;
    /// The smallest scale that the search tries, in 32nds of that of `AbsMax`.
    const FIRST_FACTOR: u8 = 18;
    /// The grid value nearest to `x`, ties to the even code; clamps.
    fn nearest(x: f32) -> f32;
    /// The code of a grid value.
    fn code(value: f32) -> u32;
    /// The grid value of a code.
    fn value(code: u32) -> f32;
}

/// Rounds to the nearest multiple of `step` (a power of two), ties to even multiples, for `|x| < 2^22 step`.
/// The last bit of 1.5 * 2^23 * step is worth one step, so the FPU does the rounding of the sum;
/// `f32::round_ties_even` is a library call on baseline x86-64.
#[inline(always)]
pub(super) fn round_to_step(x: f32, step: f32) -> f32 {
    let magic = 12_582_912.0 * step;
    (x + magic) - magic
}

/// [`round_to_step`] of 1.
#[inline(always)]
pub(super) fn round_even(x: f32) -> f32 {
    round_to_step(x, 1.0)
}

/// See [`Codec::fit`](super::Codec).
fn fit<G: Grid>(group: &[f32], search: ScaleSearch, scaling: Scaling) -> Option<Params> {
    let absmax = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if absmax == 0.0 {
        return Some(Params::default());
    }
    let full = absmax / G::MAX;
    let mut best = scaling.round(full)?;
    if search == ScaleSearch::Mse {
        let mut least = squared_error::<G>(group, best);
        let mut consider = |best: &mut f32, scale: f32| {
            let Some(candidate) = scaling.round(scale).filter(|c| c != best) else { return };
            let error = squared_error::<G>(group, candidate);
            if error < least {
                (*best, least) = (candidate, error);
            }
        };
        // Factors up to 1.09375. 28/32 is exact, so that int4 finds the scale of a group that uses -8.
        for step in G::FIRST_FACTOR..=35 {
            consider(&mut best, full * (f32::from(step) / 32.0));
        }
        if scaling.format == ScaleFormat::E8m0 {
            // So coarse that the factors above may miss a neighbour.
            let middle = best;
            for factor in [0.5, 2.0] {
                consider(&mut best, middle * factor);
            }
        }
        for _ in 0..2 {
            if let Some(scale) = least_squares::<G>(group, best) {
                consider(&mut best, scale);
            }
        }
    }
    Some(Params { scale: best, zero: 0.0 })
}

/// See [`Codec::encode`](super::Codec).
fn encode<G: Grid>(group: &[f32], params: Params, codes: &mut [u32]) {
    // A scale of 0 belongs to an all-zero group; any other divisor gives the codes of (signed) zeros.
    let scale = if params.scale == 0.0 { 1.0 } else { params.scale };
    for (code, &value) in codes.iter_mut().zip(group) {
        *code = G::code(G::nearest(value / scale));
    }
}

/// See [`Codec::decode`](super::Codec).
fn decode<G: Grid>(code: u32, scale: f32, _zero: f32) -> f32 {
    G::value(code) * scale
}

fn squared_error<G: Grid>(group: &[f32], scale: f32) -> f64 {
    lane_sum(group, |value| {
        let difference = f64::from(value) - f64::from(G::nearest(value / scale) * scale);
        difference * difference
    })
}

/// The real scale of least squared error for the codes that `scale` gives: sum(w g) / sum(g g).
fn least_squares<G: Grid>(group: &[f32], scale: f32) -> Option<f32> {
    let product = lane_sum(group, |value| f64::from(value) * f64::from(G::nearest(value / scale)));
    let square = lane_sum(group, |value| {
        let grid = f64::from(G::nearest(value / scale));
        grid * grid
    });
    (square > 0.0).then(|| (product / square) as f32)
}

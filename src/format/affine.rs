//! `int4z` and `int8z`: unsigned integers with a real-valued zero point, `w = (q - z) * s`.

use super::symmetric::round_even;
use super::{Codec, Params, ScaleFormat, ScaleSearch, Scaling, lane_sum, scale::round_f16};
use half::f16;

pub(super) static INT4: Codec = codec::<15>("int4z", 4);
pub(super) static INT8: Codec = codec::<255>("int8z", 8);

/// Codes 0..=TOP.
const fn codec<const TOP: u16>(name: &'static str, bits: usize) -> Codec {
    Codec {
        name,
        bits,
        scales: ScaleFormat::F16,
        zeros: true,
        fit: fit::<TOP>,
        encode: |group, params, codes| {
            let affine = Affine::<TOP>::new(params);
            for (code, &value) in codes.iter_mut().zip(group) {
                *code = affine.nearest(value) as u32;
            }
        },
        decode: |code, scale, zero| (code as f32 - zero) * scale,
    }
}

/// Past this |zero point| the rounding of the zero point to f16 costs more than a sixteenth of a step, and
/// the plain min-max choice is replaced by a search.
const WIDE_ZERO: f32 = 256.0;
/// Scales are kept so large that no zero point of a group exceeds this; the largest f16 is 65504.
const MAX_ZERO: f32 = 60_000.0;
/// Scales tried in a row, one f16 step apart, to find one whose zero point rounds well.
const NARROW_STEPS: u16 = 64;
/// Clipping tried at either end of the range, in steps of 4 % of the range.
const CLIP_STEPS: u8 = 6;

fn fit<const TOP: u16>(group: &[f32], search: ScaleSearch, _: Scaling) -> Option<Params> {
    let (low, high) =
        group.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let absmax = high.max(-low);
    if absmax == 0.0 {
        return Some(Params::default());
    }
    let range = high - low;
    let narrow = absmax > WIDE_ZERO * (range / f32::from(TOP));
    if search == ScaleSearch::AbsMax && !narrow {
        return from_range::<TOP>(low, high);
    }
    let mut best = Best::<TOP>::new(group);
    best.consider(from_range::<TOP>(low, high));
    if narrow {
        consider_narrow(&mut best, low, high);
    } else {
        // Clipping must not rescue a range that `AbsMax` refuses.
        best.params?;
    }
    if search == ScaleSearch::Mse {
        for (at_low, at_high) in (0..CLIP_STEPS).flat_map(|i| (0..CLIP_STEPS).map(move |j| (i, j))) {
            let clip = |steps: u8| range * (0.04 * f32::from(steps));
            best.consider(from_range::<TOP>(low + clip(at_low), high - clip(at_high)));
        }
        for _ in 0..2 {
            best.consider(best.params.and_then(|params| least_squares::<TOP>(group, params)));
        }
    }
    best.params
}

/// Maps `low..=high` to the codes 0..=TOP; `None` if the scale or the zero point overflows f16.
fn from_range<const TOP: u16>(low: f32, high: f32) -> Option<Params> {
    with_scale(round_f16((high - low) / f32::from(TOP))?, |scale| -low / scale)
}

fn with_scale(scale: f16, zero: impl Fn(f32) -> f32) -> Option<Params> {
    let zero = f16::from_f32(zero(scale.to_f32()));
    (scale.is_finite() && zero.is_finite()).then_some(Params { scale: scale.to_f32(), zero: zero.to_f32() })
}

/// A group that is narrow relative to its distance from zero, such as a constant group. Its zero point is
/// large, so rounding it to f16 shifts the whole group, by up to 2^-12 of its magnitude. The product of the
/// zero point and the scale is much finer than either factor, so nearby scales are tried: from the min-max
/// scale up, which keeps the resolution inside the group, and from the group's own magnitude up, which suits
/// near-constant groups (one code then holds them all, and a zero point near 0 rounds almost exactly).
fn consider_narrow<const TOP: u16>(best: &mut Best<TOP>, low: f32, high: f32) {
    let absmax = high.max(-low);
    let middle = 0.5 * low + 0.5 * high;
    let steps = |from: f32| {
        let first = round_f16(from).map(f16::to_bits);
        first.into_iter().flat_map(|bits| (0..NARROW_STEPS).map(move |i| f16::from_bits(bits + i)))
    };
    for scale in steps(((high - low) / f32::from(TOP)).max(absmax / MAX_ZERO)) {
        best.consider(with_scale(scale, |s| -low / s));
    }
    for scale in steps(middle.abs().min(MAX_ZERO)) {
        best.consider(with_scale(scale, |s| {
            round_even((middle / s).clamp(0.0, f32::from(TOP))) - middle / s
        }));
    }
}

/// The scale and zero point of least squared error for the codes that `params` gives: the line through the
/// points (code, value).
fn least_squares<const TOP: u16>(group: &[f32], params: Params) -> Option<Params> {
    let affine = Affine::<TOP>::new(params);
    let count = group.len() as f64;
    let codes = lane_sum(group, |v| affine.nearest(v)) / count;
    let values = lane_sum(group, f64::from) / count;
    let covariance = lane_sum(group, |v| (affine.nearest(v) - codes) * (f64::from(v) - values));
    let variance = lane_sum(group, |v| (affine.nearest(v) - codes).powi(2));
    if variance <= 0.0 || covariance <= 0.0 {
        return None;
    }
    with_scale(round_f16((covariance / variance) as f32)?, |s| (codes - values / f64::from(s)) as f32)
}

/// A group's parameters, ready for coding. In f64: with a large zero point, `value / scale + zero` cancels.
struct Affine<const TOP: u16> {
    scale: f64,
    zero: f64,
}

impl<const TOP: u16> Affine<TOP> {
    fn new(params: Params) -> Self {
        // A scale of 0 belongs to an all-zero group, whose codes do not matter.
        let scale = if params.scale == 0.0 { 1.0 } else { params.scale };
        Affine { scale: f64::from(scale), zero: f64::from(params.zero) }
    }

    /// The nearest code, ties to even, by the rounding of 1.5 * 2^52 (see [`round_even`]).
    #[inline(always)]
    fn nearest(&self, value: f32) -> f64 {
        const MAGIC: f64 = 6_755_399_441_055_744.0;
        ((f64::from(value) / self.scale + self.zero).clamp(0.0, f64::from(TOP)) + MAGIC) - MAGIC
    }

    fn squared_error(&self, group: &[f32]) -> f64 {
        let (scale, zero) = (self.scale as f32, self.zero as f32);
        lane_sum(group, |value| {
            let decoded = (self.nearest(value) as f32 - zero) * scale;
            let difference = f64::from(value) - f64::from(decoded);
            difference * difference
        })
    }
}

/// The best parameters so far.
struct Best<'a, const TOP: u16> {
    group: &'a [f32],
    params: Option<Params>,
    error: f64,
}

impl<'a, const TOP: u16> Best<'a, TOP> {
    fn new(group: &'a [f32]) -> Self {
        Best { group, params: None, error: f64::INFINITY }
    }

    fn consider(&mut self, candidate: Option<Params>) {
        // Nothing beats an exact group; many near-constant groups end here.
        let Some(params) = candidate.filter(|_| self.error > 0.0) else { return };
        let error = Affine::<TOP>::new(params).squared_error(self.group);
        if error < self.error {
            (self.params, self.error) = (Some(params), error);
        }
    }
}

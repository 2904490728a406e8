//! Elementwise addition, multiplication, scaled copy (which also converts between f32 and f16) and soft cap.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::{add, mul, scaled_copy, soft_cap};
pub use spec::ELEMENTWISE;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::tensor::{DType, Tensor};

/// What to compute.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// out = a + b, with `b` like `a`.
    Add(&'a Tensor),
    /// out = a · b, with `b` like `a`.
    Mul(&'a Tensor),
    /// out = a · scale, with a finite scale; `out` may be of the other dtype.
    ScaledCopy(f32),
    /// out = cap · tanh(a / cap), with a positive, finite cap: logits bent into ±cap (Gemma 2, 2024).
    SoftCap(f32),
}

/// One value of `out` for each of `a`, worked out in f32. Magnitudes over 65504 overflow in an f16 `out`.
#[derive(Clone, Copy, Debug)]
pub struct Elementwise<'a> {
    /// Any shape, f32 or f16.
    pub a: &'a Tensor,
    pub op: Op<'a>,
    /// Shaped like `a`, and of its dtype unless the operation is a scaled copy. It may be `a` or `b` itself, but
    /// must not overlap either otherwise.
    pub out: &'a Tensor,
}

/// Records one elementwise operation.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{Gpu, elementwise::{self, Elementwise, Op}};
/// let gpu = Gpu::new()?;
/// let a = gpu.tensor(&[3], &[1.0f32, 2.0, 3.0])?;
/// let b = gpu.tensor(&[3], &[0.5f32, 0.5, 0.5])?;
/// gpu.run(|r| elementwise::record(r, &Elementwise { a: &a, op: Op::Add(&b), out: &a }))?;
/// assert_eq!(gpu.read::<f32>(&a)?, [1.5, 2.5, 3.5]);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Elementwise<'_>) -> Result<()> {
    const KERNEL: &str = "elementwise";
    let Elementwise { a, op, out } = *request;
    let dtype = a.dtype();
    a.expect(KERNEL, "a", &[DType::F32, DType::F16], a.shape())?;
    let (kind, b, scale) = match op {
        Op::Add(b) => (spec::Kind::Add, b, 0.0),
        Op::Mul(b) => (spec::Kind::Mul, b, 0.0),
        // b's binding is never read.
        Op::ScaledCopy(scale) => (spec::Kind::ScaledCopy, a, scale),
        Op::SoftCap(cap) => (spec::Kind::SoftCap, a, cap),
    };
    b.expect(KERNEL, "b", &[dtype], a.shape())?;
    let (any, like_a) = ([DType::F32, DType::F16], [dtype]);
    let dtypes = if kind == spec::Kind::ScaledCopy { any.as_slice() } else { &like_a };
    out.expect(KERNEL, "out", dtypes, a.shape())?;
    if kind == spec::Kind::SoftCap && !(scale.is_normal() && scale > 0.0) {
        return Err(Error::value(KERNEL, "cap", scale, "positive, finite and not subnormal"));
    }
    if !scale.is_finite() {
        return Err(Error::value(KERNEL, "scale", scale, "finite"));
    }
    for (name, input) in [("a", a), ("b", b)] {
        let same = input.offset() == out.offset() && dtype == out.dtype();
        if !same && input.overlaps(out) {
            return Err(Error::shape(KERNEL, "out", "a part of an input", format!("{name} itself or apart")));
        }
    }
    let wide = a.len().is_multiple_of(4);
    let count = index32(KERNEL, "a", a.len())? / if wide { 4 } else { 1 };
    let variant = spec::variant(kind, dtype, out.dtype(), wide);
    let (tier, defines, needs) = recorder.choose(&ELEMENTWISE, |_| Ok(variant.clone().into()))?;
    recorder.launch(Launch {
        spec: &ELEMENTWISE,
        tier,
        defines,
        needs,
        binds: &[a, b, out],
        params: spec::ElementwiseParams { count, scale },
        groups: u64::from(count).div_ceil(u64::from(spec::THREADS)),
    })
}

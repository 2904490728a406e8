//! Softmax over rows.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::softmax;
pub use spec::SOFTMAX;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::tensor::{DType, Tensor};

/// out\[r, c\] = exp(scale · x\[r, c\]) / Σ_c exp(scale · x\[r, c\]), the maximum subtracted first.
#[derive(Clone, Copy, Debug)]
pub struct Softmax<'a> {
    /// \[rows, cols\] (any dimensions before the last count as rows), f32 or f16. Values below -1e30, −∞ among them,
    /// count as -1e30: they get 0, or 1/cols in a row of nothing else. NaN and +∞ are not allowed. (With a negative
    /// scale the signs are the other way round.)
    pub x: &'a Tensor,
    /// Like `x`; it may be `x` itself but must not overlap it otherwise. An f16 result under 6e-5 is subnormal and
    /// keeps fewer digits: it is off by up to 3e-8.
    pub out: &'a Tensor,
    /// Finite.
    pub scale: f32,
}

/// Records one softmax: one workgroup a row, f32 sums.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{Gpu, softmax};
/// let gpu = Gpu::new()?;
/// let x = gpu.tensor(&[1, 4], &[0.0f32, 1.0, 2.0, 3.0])?;
/// gpu.run(|r| softmax::record(r, &softmax::Softmax { x: &x, out: &x, scale: 1.0 }))?;
/// println!("{:?}", gpu.read::<f32>(&x)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Softmax<'_>) -> Result<()> {
    const KERNEL: &str = "softmax";
    let Softmax { x, out, scale } = *request;
    x.expect(KERNEL, "x", &[DType::F32, DType::F16], x.shape())?;
    out.expect(KERNEL, "out", &[x.dtype()], x.shape())?;
    if !scale.is_finite() {
        return Err(Error::value(KERNEL, "scale", scale, "finite"));
    }
    if x.offset() != out.offset() && x.overlaps(out) {
        return Err(Error::shape(KERNEL, "out", "a part of x", "x itself or apart"));
    }
    index32(KERNEL, "x", x.len())?;
    let wide = x.cols().is_multiple_of(4);
    let (tier, defines, needs) =
        recorder.choose(&SOFTMAX, |tier| Ok(spec::variant(tier, x.dtype(), wide).into()))?;
    let units = index32(KERNEL, "columns", x.cols())? / if wide { 4 } else { 1 };
    // Rows without columns are nothing to do.
    let rows = if units == 0 { 0 } else { index32(KERNEL, "rows", x.rows())? };
    recorder.launch(Launch {
        spec: &SOFTMAX,
        tier,
        defines,
        needs,
        binds: &[x, out],
        params: spec::SoftmaxParams { rows, units, scale },
        groups: u64::from(rows),
    })
}

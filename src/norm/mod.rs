//! Root-mean-square normalisation, alone or fused with the residual addition before it
//! (Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019).

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::rms_norm;
pub use spec::RMS_NORM;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder};
use crate::tensor::{DType, Tensor};

/// out\[r, c\] = x\[r, c\] / √(mean_c x² + eps) · weight\[c\], with x first replaced by x + residual when one is given.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// \[rows, cols\], f32 or f16; any shape whose last dimension is normalised, so \[tokens, heads, D\] for a norm of
    /// every query and key head ("QK-norm"). The sum with the residual is **written back** here.
    pub x: &'a Tensor,
    /// Added to `x` first; like `x`.
    pub residual: Option<&'a Tensor>,
    /// \[cols\], like `x`.
    pub weight: &'a Tensor,
    /// Whether `weight` holds γ where 1 + γ is meant, as in Gemma's checkpoints. The 1 is added in f32.
    pub unit_offset: bool,
    /// Like `x`, and perhaps `x` itself if there is no residual.
    pub out: &'a Tensor,
    /// Added to the mean square; finite, ≥ 0.
    pub eps: f32,
}

impl<'a> RmsNorm<'a> {
    /// Without a residual; weights as they are stored.
    pub fn new(x: &'a Tensor, weight: &'a Tensor, out: &'a Tensor, eps: f32) -> RmsNorm<'a> {
        RmsNorm { x, residual: None, weight, unit_offset: false, out, eps }
    }
}

/// Records one RMS normalisation: one workgroup a row, f32 sums.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, norm};
/// let gpu = Gpu::new()?;
/// let x = gpu.tensor(&[1, 4], &[1.0f32, 2.0, 3.0, 4.0])?;
/// let weight = gpu.tensor(&[4], &[1.0f32; 4])?;
/// let out = gpu.alloc(DType::F32, &[1, 4])?;
/// gpu.run(|r| norm::record(r, &norm::RmsNorm::new(&x, &weight, &out, 1e-5)))?;
/// println!("{:?}", gpu.read::<f32>(&out)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &RmsNorm<'_>) -> Result<()> {
    const KERNEL: &str = "rms_norm";
    let RmsNorm { x, residual, weight, unit_offset, out, eps } = *request;
    let dtype = x.dtype();
    x.expect(KERNEL, "x", &[DType::F32, DType::F16], x.shape())?;
    let (rows, cols) = (x.rows(), x.cols());
    weight.expect(KERNEL, "weight", &[dtype], &[cols])?;
    out.expect(KERNEL, "out", &[dtype], x.shape())?;
    if let Some(residual) = residual {
        residual.expect(KERNEL, "residual", &[dtype], x.shape())?;
    }
    if out.overlaps(x) && (residual.is_some() || out.offset() != x.offset()) {
        let want = if residual.is_some() { "memory of its own" } else { "x itself or memory of its own" };
        return Err(Error::shape(KERNEL, "out", "overlapping x", want));
    }
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(Error::value(KERNEL, "eps", eps, "finite and at least 0"));
    }
    let base = if unit_offset { 1.0 } else { 0.0 };
    let (tier, defines, needs) =
        recorder.choose(&RMS_NORM, |tier| Ok(spec::variant(tier, dtype, residual.is_some()).into()))?;
    recorder.launch(Launch {
        spec: &RMS_NORM,
        tier,
        defines,
        needs,
        // Without a residual its binding is never read; the weight stands in.
        binds: &[x, residual.unwrap_or(weight), weight, out],
        params: spec::RmsNormParams { rows: rows as u32, cols: cols as u32, eps, base },
        groups: rows as u64,
    })
}

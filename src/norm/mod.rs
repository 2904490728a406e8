//! Normalisation of rows, alone or fused with the residual addition before it: by the root mean square ([`record`]; Zhang
//! & Sennrich, "Root Mean Square Layer Normalization", 2019), or by mean and variance ([`record_layer`]; Ba et al., "Layer
//! Normalization", 2016).

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::{layer_norm, rms_norm};
pub use spec::{LAYER_NORM, RMS_NORM};

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
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
    let (rows, cols) = check(KERNEL, x, residual, [Some(weight), None], out, eps)?;
    let dtype = x.dtype();
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
        params: spec::RmsNormParams { rows, cols, eps, base },
        groups: u64::from(rows),
    })
}

/// out\[r, c\] = (x\[r, c\] − mean_c x) / √(variance_c x + eps) · weight\[c\] + bias\[c\], with x first replaced by x +
/// residual when one is given. The variance is that of the row itself (divided by its length, not one less).
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// \[rows, cols\] or any shape whose last dimension is normalised, f32 or f16. The sum with the residual is **written
    /// back** here.
    pub x: &'a Tensor,
    /// Added to `x` first; like `x`.
    pub residual: Option<&'a Tensor>,
    /// \[cols\], like `x`.
    pub weight: &'a Tensor,
    /// \[cols\], like `x`.
    pub bias: Option<&'a Tensor>,
    /// Like `x`, and perhaps `x` itself if there is no residual.
    pub out: &'a Tensor,
    /// Added to the variance; finite, ≥ 0.
    pub eps: f32,
}

/// Records one layer normalisation: one workgroup a row, f32 sums.
///
/// # Errors
/// As [`record`].
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, norm::{self, LayerNorm}};
/// let gpu = Gpu::new()?;
/// let x = gpu.tensor(&[1, 4], &[1.0f32, 2.0, 3.0, 4.0])?;
/// let weight = gpu.tensor(&[4], &[1.0f32; 4])?;
/// let bias = gpu.tensor(&[4], &[0.5f32; 4])?;
/// let out = gpu.alloc(DType::F32, &[1, 4])?;
/// let (residual, bias, eps) = (None, Some(&bias), 1e-5);
/// gpu.run(|r| {
///     norm::record_layer(r, &LayerNorm { x: &x, residual, weight: &weight, bias, out: &out, eps })
/// })?;
/// println!("{:?}", gpu.read::<f32>(&out)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_layer(recorder: &mut Recorder<'_, '_>, request: &LayerNorm<'_>) -> Result<()> {
    let LayerNorm { x, residual, weight, bias, out, eps } = *request;
    let (rows, cols) = check(LAYER_NORM.name, x, residual, [Some(weight), bias], out, eps)?;
    let (tier, defines, needs) =
        recorder.choose(&LAYER_NORM, |tier| Ok(spec::variant(tier, x.dtype(), residual.is_some()).into()))?;
    let biased = u32::from(bias.is_some());
    recorder.launch(Launch {
        spec: &LAYER_NORM,
        tier,
        defines,
        needs,
        // What is absent is never used; the weight stands in.
        binds: &[x, residual.unwrap_or(weight), weight, bias.unwrap_or(weight), out],
        params: spec::LayerNormParams { rows, cols, eps, biased },
        groups: u64::from(rows),
    })
}

/// Checks the arguments of a norm, with weight and bias; rows and columns.
fn check(
    kernel: &'static str,
    x: &Tensor,
    residual: Option<&Tensor>,
    [weight, bias]: [Option<&Tensor>; 2],
    out: &Tensor,
    eps: f32,
) -> Result<(u32, u32)> {
    let dtype = [x.dtype()];
    x.expect(kernel, "x", &[DType::F32, DType::F16], x.shape())?;
    index32(kernel, "elements of x", x.len())?;
    for (what, vector) in [("weight", weight), ("bias", bias)] {
        vector.map_or(Ok(()), |vector| vector.expect(kernel, what, &dtype, &[x.cols()]))?;
    }
    out.expect(kernel, "out", &dtype, x.shape())?;
    residual.map_or(Ok(()), |residual| residual.expect(kernel, "residual", &dtype, x.shape()))?;
    if out.overlaps(x) && (residual.is_some() || out.offset() != x.offset()) {
        let want = if residual.is_some() { "memory of its own" } else { "x itself or memory of its own" };
        return Err(Error::shape(kernel, "out", "overlapping x", want));
    }
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(Error::value(kernel, "eps", eps, "finite and at least 0"));
    }
    // No more than the elements, unless there are none.
    Ok(if x.is_empty() { (0, 0) } else { (x.rows() as u32, x.cols() as u32) })
}

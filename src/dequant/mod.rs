//! Weights of every format written out as f32, f16 or bf16.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::dequant;
pub use spec::DEQUANT;
use spec::Rows;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::matmul::{FLOATS, Weight};
use crate::tensor::{DType, Tensor};

/// out\[n, k\] = the weight that `weight`\[n, k\] encodes; see the table of [`format`](crate::format).
#[derive(Clone, Copy, Debug)]
pub struct Dequant<'a> {
    /// \[N, K\] in any format.
    pub weight: &'a Weight,
    /// \[N, K\], f32, f16 or, of even K, bf16. Weights are computed in f32; conversion to f16 is the adapter's, which may
    /// round to nearest or towards zero, and of weights beyond ±65504 may make anything; to bf16 it rounds to nearest even.
    pub out: &'a Tensor,
}

/// Records one launch per part of the weight: one, unless the weight is larger than a binding may be.
///
/// # Errors
/// [`Error::Shape`] naming the argument, [`Error::Limit`] over 2³¹ elements,
/// [`Error::ForeignTensor`], [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
/// use wgmarlin::{DType, Gpu, dequant::{self, Dequant}, matmul::Weight};
/// let gpu = Gpu::new()?;
/// let values = [0.0, 0.5, -1.0, 1.5, 2.0, -3.0, 4.0, 6.0];
/// let packed = PackedMatrix::quantise(&values, 1, 8, Format::Fp4, Group::WholeK, ScaleSearch::AbsMax)?;
/// let weight = Weight::upload(&gpu, &packed)?;
/// let out = gpu.alloc(DType::F32, &[1, 8])?;
/// gpu.run(|r| dequant::record(r, &Dequant { weight: &weight, out: &out }))?;
/// assert_eq!(gpu.read::<f32>(&out)?, values);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Dequant<'_>) -> Result<()> {
    const KERNEL: &str = "dequant";
    let Dequant { weight, out } = *request;
    let (n, k) = (weight.n(), weight.k());
    out.expect(KERNEL, "out", FLOATS, &[n, k])?;
    if out.dtype() == DType::Bf16 && !k.is_multiple_of(2) {
        return Err(Error::shape(KERNEL, "out's columns", k, "an even number in bf16"));
    }
    weight.check_device(KERNEL, "weight", recorder.gpu())?;
    index32(KERNEL, "out", out.len())?;
    let rows = Rows::of(weight);
    let variant = spec::variant(weight.format(), out.dtype(), rows);
    let (tier, defines, needs) = recorder.choose(&DEQUANT, |_| Ok(variant.clone().into()))?;
    for part in weight.parts() {
        let (n, chunks) = (part.rows.len(), part.rows.len() * k.div_ceil(8));
        // Rows without padding are one long row.
        let (n, joined) = if rows == Rows::Flat { (1, n) } else { (n, 1) };
        recorder.launch(Launch {
            spec: &DEQUANT,
            tier,
            defines: defines.clone(),
            needs,
            binds: &[out, &part.words, &part.scales, &part.zeros],
            params: spec::DequantParams {
                n: index32(KERNEL, "rows", n)?,
                k: index32(KERNEL, "columns", k * joined)?,
                packets: index32(KERNEL, "packets", weight.packets() * joined)?,
                groups: index32(KERNEL, "groups", weight.groups() * joined)?,
                group_shift: weight.group_shift(),
                first: index32(KERNEL, "out", part.rows.start * k)?,
            },
            groups: (chunks as u64).div_ceil(u64::from(rows.chunks())),
        })?;
    }
    Ok(())
}

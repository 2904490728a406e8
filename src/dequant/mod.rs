//! Weights of every format written out as f32 or f16.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::dequant;
pub use spec::DEQUANT;

use crate::error::Result;
use crate::kernel::{Launch, Recorder, index32};
use crate::matmul::{FLOATS, Weight};
use crate::tensor::Tensor;

/// out\[n, k\] = the weight that `weight`\[n, k\] encodes; see the table of [`format`](crate::format).
#[derive(Clone, Copy, Debug)]
pub struct Dequant<'a> {
    /// \[N, K\] in any format.
    pub weight: &'a Weight,
    /// \[N, K\], f32 or f16. Weights are computed in f32; those beyond ±65504 have no f16 and give what the adapter's
    /// conversion gives.
    pub out: &'a Tensor,
}

/// Records one launch per part of the weight: one, unless the weight is larger than a binding may be.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) naming the argument, [`Error::Limit`](crate::Error::Limit) over 2³¹ elements,
/// [`Error::ForeignTensor`](crate::Error::ForeignTensor), [`Error::Unsupported`](crate::Error::Unsupported) for f16
/// without `SHADER_F16`.
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
    weight.check_device(KERNEL, "weight", recorder.gpu())?;
    index32(KERNEL, "out", out.len())?;
    let variant = spec::variant(weight.format(), out.dtype(), k.is_multiple_of(8));
    let (tier, defines, needs) = recorder.choose(&DEQUANT, |_| Ok(variant.clone().into()))?;
    for part in weight.parts() {
        let chunks = (part.rows.len() * k.div_ceil(8)) as u64;
        recorder.launch(Launch {
            spec: &DEQUANT,
            tier,
            defines: defines.clone(),
            needs,
            binds: &[out, &part.words, &part.scales, &part.zeros],
            params: spec::DequantParams {
                n: index32(KERNEL, "rows", part.rows.len())?,
                k: index32(KERNEL, "columns", k)?,
                packets: index32(KERNEL, "packets", weight.packets())?,
                groups: index32(KERNEL, "groups", weight.groups())?,
                group_shift: weight.group_shift(),
                n_first: index32(KERNEL, "rows", part.rows.start)?,
            },
            groups: chunks.div_ceil(u64::from(spec::THREADS)),
        })?;
    }
    Ok(())
}

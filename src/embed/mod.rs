//! Token embeddings: rows of a table gathered by ids that live on the GPU.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::embed;
pub use spec::EMBED;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::tensor::{DType, Tensor};

/// out\[t, :\] = table\[ids\[t\], :\] · scale.
#[derive(Clone, Copy, Debug)]
pub struct Embed<'a> {
    /// \[T\], u32. They are data of the GPU, so the host cannot check them: an id past the table gives a row of zeros.
    pub ids: &'a Tensor,
    /// \[V, D\], f32 or f16; or bf16, two a word with the even column in the low half: u32, \[V, D/2\].
    pub table: &'a Tensor,
    /// \[T, D\], f32 or f16 whatever the table's dtype.
    pub out: &'a Tensor,
    /// Factor of every element (Gemma's √D, otherwise 1); finite.
    pub scale: f32,
}

/// Records one gather.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, embed};
/// let gpu = Gpu::new()?;
/// let ids = gpu.tensor(&[2], &[1u32, 0])?;
/// let table = gpu.tensor(&[2, 4], &[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])?;
/// let out = gpu.alloc(DType::F32, &[2, 4])?;
/// gpu.run(|r| embed::record(r, &embed::Embed { ids: &ids, table: &table, out: &out, scale: 1.0 }))?;
/// assert_eq!(gpu.read::<f32>(&out)?, [4.0, 5.0, 6.0, 7.0, 0.0, 1.0, 2.0, 3.0]);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Embed<'_>) -> Result<()> {
    const KERNEL: &str = "embed";
    let Embed { ids, table, out, scale } = *request;
    ids.expect(KERNEL, "ids", &[DType::U32], &[ids.len()])?;
    let (vocab, stored) = (table.rows(), table.cols());
    table.expect(KERNEL, "table", &[DType::F32, DType::F16, DType::U32], &[vocab, stored])?;
    let cols = if table.dtype() == DType::U32 { stored.saturating_mul(2) } else { stored };
    out.expect(KERNEL, "out", &[DType::F32, DType::F16], &[ids.len(), cols])?;
    if !scale.is_finite() {
        return Err(Error::value(KERNEL, "scale", scale, "finite"));
    }
    let wide = cols.is_multiple_of(4);
    let width = if wide { 4 } else { 1 };
    index32(KERNEL, "table", vocab.saturating_mul(cols))?;
    let count = index32(KERNEL, "out", out.len())? / width;
    let units = index32(KERNEL, "columns", cols)? / width;
    let variant = spec::variant(table.dtype(), out.dtype(), wide);
    let (tier, defines, needs) = recorder.choose(&EMBED, |_| Ok(variant.clone().into()))?;
    recorder.launch(Launch {
        spec: &EMBED,
        tier,
        defines,
        needs,
        binds: &[ids, table, out],
        params: spec::EmbedParams { count, units, vocab: index32(KERNEL, "rows of table", vocab)?, scale },
        groups: u64::from(count).div_ceil(u64::from(spec::THREADS)),
    })
}

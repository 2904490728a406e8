//! Greedy choice of a token.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::argmax;
pub use spec::ARGMAX;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::tensor::{DType, Tensor};

/// index\[r\] = the c with the greatest logits\[r, c\]; the lowest of equals. NaN never wins (0 if a row has nothing
/// else); infinities are ordinary values here.
#[derive(Clone, Copy, Debug)]
pub struct Argmax<'a> {
    /// \[R, V\], f32 or f16, V at least 1.
    pub logits: &'a Tensor,
    /// \[R\], u32.
    pub index: &'a Tensor,
}

/// Records one argmax: one workgroup a row.
///
/// # Errors
/// [`Error::Shape`] naming the argument, [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, argmax};
/// let gpu = Gpu::new()?;
/// let logits = gpu.tensor(&[1, 4], &[0.5f32, 2.0, -1.0, 2.0])?;
/// let index = gpu.alloc(DType::U32, &[1])?;
/// gpu.run(|r| argmax::record(r, &argmax::Argmax { logits: &logits, index: &index }))?;
/// assert_eq!(gpu.read::<u32>(&index)?, [1]);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Argmax<'_>) -> Result<()> {
    const KERNEL: &str = "argmax";
    let Argmax { logits, index } = *request;
    let (rows, cols) = (logits.rows(), logits.cols());
    logits.expect(KERNEL, "logits", &[DType::F32, DType::F16], &[rows, cols])?;
    if cols == 0 {
        return Err(Error::shape(KERNEL, "logits", logits.shape(), "at least one column"));
    }
    index.expect(KERNEL, "index", &[DType::U32], &[rows])?;
    index32(KERNEL, "logits", logits.len())?;
    let wide = cols.is_multiple_of(4);
    let (tier, defines, needs) =
        recorder.choose(&ARGMAX, |tier| Ok(spec::variant(tier, logits.dtype(), wide).into()))?;
    let params =
        spec::ArgmaxParams { rows: index32(KERNEL, "rows", rows)?, cols: index32(KERNEL, "columns", cols)? };
    recorder.launch(Launch {
        spec: &ARGMAX,
        tier,
        defines,
        needs,
        binds: &[logits, index],
        params,
        groups: u64::from(params.rows),
    })
}

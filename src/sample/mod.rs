//! Random choice of a token: temperature, top-k, top-p and one exactly repeatable draw.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::{philox4x32, probabilities, sample};
pub use spec::SAMPLE;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::tensor::{DType, Tensor};

/// Greatest number of columns: sums of probabilities are 64-bit integers with room for so many.
pub const MAX_COLS: usize = 1 << 18;

/// How to choose. The steps follow one another in the order of the fields.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Choice {
    /// Logits are divided by it; from 1e-30. For "temperature 0" use [`argmax`](crate::argmax).
    pub temperature: f32,
    /// Keeps exactly this many greatest logits, of equals those of lowest index; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most probable of what is left whose probabilities add up to at least this share of it; of
    /// equals those of lowest index. In (0, 1]; 1 keeps all (Holtzman et al., "The curious case of neural text
    /// degeneration", 2020).
    pub top_p: f32,
    /// Key of the generator, Philox4x32-10.
    pub seed: u64,
    /// The generator's counter is (row, step, 0, 0): count steps up to draw anew.
    pub step: u32,
}

/// index\[r\] = a random column of row r, column c with probability ∝ exp(logits\[r, c\] / temperature) among those
/// that the filters keep: the first column in order of index where the running probability exceeds u, and u in
/// \[0, 1) is the generator's first word / 2³². The same request gives the same answer.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// \[R, V\], f32 or f16, V from 1 to [`MAX_COLS`]. NaN is never chosen (0 if a row has nothing else); infinities
    /// count as ±1e38. Logits more than 31 · temperature below the greatest have no probability.
    pub logits: &'a Tensor,
    /// \[R\], u32.
    pub index: &'a Tensor,
    pub choice: Choice,
}

/// Records one draw a row: one workgroup a row, without sorting.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, sample};
/// let gpu = Gpu::new()?;
/// let logits = gpu.tensor(&[1, 4], &[0.5f32, 2.0, -1.0, 2.0])?;
/// let index = gpu.alloc(DType::U32, &[1])?;
/// let choice = sample::Choice { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 42, step: 0 };
/// gpu.run(|r| sample::record(r, &sample::Sample { logits: &logits, index: &index, choice }))?;
/// println!("{:?}", gpu.read::<u32>(&index)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Sample<'_>) -> Result<()> {
    const KERNEL: &str = "sample";
    let Sample { logits, index, choice } = *request;
    let (rows, cols) = (logits.rows(), logits.cols());
    logits.expect(KERNEL, "logits", &[DType::F32, DType::F16], &[rows, cols])?;
    if !(1..=MAX_COLS).contains(&cols) {
        return Err(Error::shape(KERNEL, "logits", logits.shape(), format!("1 to {MAX_COLS} columns")));
    }
    index.expect(KERNEL, "index", &[DType::U32], &[rows])?;
    let Choice { temperature, top_k, top_p, seed, step } = choice;
    if !(temperature.is_finite() && temperature >= 1e-30) {
        let want = "finite and at least 1e-30; for temperature 0 use argmax";
        return Err(Error::value(KERNEL, "temperature", temperature, want));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(Error::value(KERNEL, "top_p", top_p, "above 0 and at most 1"));
    }
    index32(KERNEL, "logits", logits.len())?;
    let wide = cols.is_multiple_of(4);
    let variant = spec::variant(logits.dtype(), wide);
    let (tier, defines, needs) = recorder.choose(&SAMPLE, |_| Ok(variant.clone().into()))?;
    // The product is exact, and the cast takes what is too great or too small to the nearest u32.
    let share = (f64::from(top_p) * 2f64.powi(32)) as u32;
    let params = spec::SampleParams {
        rows: index32(KERNEL, "rows", rows)?,
        cols: index32(KERNEL, "columns", cols)?,
        top_k: if top_k < cols { index32(KERNEL, "top_k", top_k)? } else { 0 },
        top_p: if top_p < 1.0 { share.max(1) } else { 0 },
        seed_low: seed as u32,
        seed_high: (seed >> 32) as u32,
        step,
        inv_temperature: 1.0 / temperature,
    };
    recorder.launch(Launch {
        spec: &SAMPLE,
        tier,
        defines,
        needs,
        binds: &[logits, index],
        params,
        groups: u64::from(params.rows),
    })
}

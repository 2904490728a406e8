//! Quantisation on the GPU: dense weights to FP4, INT4, INT8 and FP8, in the layout of [`Weight`].
//!
//! Scales and codes are those of [`PackedMatrix::quantise`](crate::format::PackedMatrix::quantise), bit for bit, on every
//! adapter: a group's scale is its largest magnitude over that of the format, rounded to f16 (FP4: 6, INT4: 7, INT8: 127, both
//! FP8: 448), and each code is the nearest one, ties to even. The formats and their sources are in the table of
//! [`format`](crate::format). A code is found by comparing the value with exact products of scales and midpoints, not by
//! a quotient, which WGSL does not round.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::quantize;
pub use spec::QUANTIZE;

use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::format::{Format, Group};
use crate::kernel::{Launch, Recorder, index32};
use crate::matmul::Weight;
use crate::tensor::{DType, Tensor};

const KERNEL: &str = "quantize";

/// The formats that the kernel makes.
pub const FORMATS: [Format; 5] = [Format::Fp4, Format::Int4, Format::Int8, Format::E4m3, Format::E5m2];

/// out\[n, k\] = the codes nearest to values\[n, k\], with a scale a group.
#[derive(Clone, Copy, Debug)]
pub struct Quantize<'a> {
    /// \[N, K\] in f32, f16 or bf16; [`Weight::from_tensor`] makes one of a tensor.
    pub values: &'a Weight,
    /// \[N, K\] in one of [`FORMATS`], made by [`Weight::alloc`].
    pub out: &'a Weight,
    /// \[2\], u32, made by [`status`]. One may serve many launches.
    pub status: &'a Tensor,
}

/// Records one launch per part of the weights: one, unless they are larger than a binding may be.
///
/// A group with a value that is not finite, or too large for a finite scale, gets the scale 0 and the codes of zeros, and
/// `status` tells of it: see [`check`].
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Limit`] over 2³¹ elements, [`Error::ForeignTensor`].
///
/// ```no_run
/// use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
/// use wgmarlin::{Gpu, matmul::Weight, quantize::{self, Quantize}};
/// let gpu = Gpu::new()?;
/// let (n, k) = (64, 128);
/// let values = vec![0.5; n * k];
/// let dense = PackedMatrix::quantise(&values, n, k, Format::F16, Group::WholeK, ScaleSearch::AbsMax)?;
/// let dense = Weight::upload(&gpu, &dense)?;
/// let weight = Weight::alloc(&gpu, Format::Fp4, n, k, Group::Size(32))?;
/// let status = quantize::status(&gpu)?;
/// gpu.run(|r| quantize::record(r, &Quantize { values: &dense, out: &weight, status: &status }))?;
/// quantize::check(&gpu, &status, &weight)?; // `weight` now serves matmul::record
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Quantize<'_>) -> Result<()> {
    let Quantize { values, out, status } = *request;
    let (n, k) = (out.n(), out.k());
    if values.format().is_quantised() {
        return Err(Error::value(KERNEL, "values' format", values.format().name(), "f32, f16 or bf16"));
    }
    if !FORMATS.contains(&out.format()) {
        let want = FORMATS.map(Format::name).join(", ");
        return Err(Error::value(KERNEL, "out's format", out.format().name(), format!("one of {want}")));
    }
    if (values.n(), values.k()) != (n, k) {
        return Err(Error::shape(KERNEL, "values", [values.n(), values.k()], format!("[{n}, {k}]")));
    }
    status.expect(KERNEL, "status", &[DType::U32], &[2])?;
    values.check_device(KERNEL, "values", recorder.gpu())?;
    out.check_device(KERNEL, "out", recorder.gpu())?;
    index32(KERNEL, "out", n.saturating_mul(k))?;
    let variant = spec::variant(values.format(), out.format());
    let (tier, defines, needs) = recorder.choose(&QUANTIZE, |_| Ok(variant.clone().into()))?;
    out.forget_scales();
    let chunks = out.group().div_ceil(8);
    let team = chunks.next_power_of_two().min(spec::THREADS as usize);
    for (from, to) in values.parts().iter().flat_map(|from| out.parts().iter().map(move |to| (from, to))) {
        let (first, end) = (from.rows.start.max(to.rows.start), from.rows.end.min(to.rows.end));
        let Some(rows) = end.checked_sub(first).filter(|&rows| rows > 0) else { continue };
        let index = |what, n| index32(KERNEL, what, n);
        recorder.launch(Launch {
            spec: &QUANTIZE,
            tier,
            defines: defines.clone(),
            needs,
            binds: &[&from.words, &to.words, &to.scales, status],
            params: spec::QuantizeParams {
                rows: index("rows", rows)?,
                k: index("columns", k)?,
                in_first: index("rows", first - from.rows.start)?,
                in_packets: index("packets", values.packets())?,
                out_first: index("rows", first - to.rows.start)?,
                out_chunks: index("columns", out.padded_k() / 8)?,
                first: index("out", first * k)?,
                groups: index("groups", out.groups())?,
                chunks: index("columns", chunks)?,
                team: index("threads", team)?,
            },
            groups: (rows * out.groups()).div_ceil(spec::THREADS as usize / team) as u64,
        })?;
    }
    Ok(())
}

/// A fresh status: nothing to complain of.
///
/// # Errors
/// As [`Gpu::alloc`].
pub fn status(gpu: &Gpu) -> Result<Tensor> {
    gpu.tensor(&[2], &[u32::MAX; 2])
}

/// Reads a status, blocking, and reports the first value that could not be quantised. `weight` is what was written.
///
/// # Errors
/// [`Error::Value`] with row and column of the first value that is not finite, or that is too large for a finite scale,
/// as [`PackedMatrix::quantise`](crate::format::PackedMatrix::quantise) gives it; the errors of [`Gpu::read`].
pub fn check(gpu: &Gpu, status: &Tensor, weight: &Weight) -> Result<()> {
    status.expect(KERNEL, "status", &[DType::U32], &[2])?;
    let found = gpu.read::<u32>(status)?;
    let place = |kind: usize| {
        let at = found.get(kind).copied().filter(|&at| at != u32::MAX)? as usize;
        Some((at / weight.k(), kind, at % weight.k()))
    };
    // As on the host, the first row counts, and in it values that are no numbers.
    let Some((row, kind, column)) = [place(0), place(1)].into_iter().flatten().min() else { return Ok(()) };
    let (got, want) = match kind {
        0 => ("not finite", "finite".to_string()),
        _ => ("too large", format!("small enough for a finite scale in {}", weight.format().name())),
    };
    Err(Error::value(KERNEL, format!("values at row {row}, column {column}"), got, want))
}

/// Quantises a dense weight, blocking: [`Weight::alloc`], [`record`] and [`check`] in one.
///
/// # Errors
/// Theirs.
pub fn quantized(gpu: &Gpu, values: &Weight, format: Format, group: Group) -> Result<Weight> {
    let out = Weight::alloc(gpu, format, values.n(), values.k(), group)?;
    let status = status(gpu)?;
    gpu.run(|r| record(r, &Quantize { values, out: &out, status: &status }))?;
    check(gpu, &status, &out)?;
    Ok(out)
}

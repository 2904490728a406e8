//! Products with N:M-sparse weights: out = epilogue(a · Wᵀ), where every m consecutive weights of a row of W keep n.
//!
//! [`prune`] chooses what is kept, [`SparseMatrix`] holds it with its positions, [`SparseWeight`] is the same on the GPU, and
//! [`record`] multiplies: with up to 8 rows of activations by `gemv_sparse`, which reads every weight once, with more by the
//! tiled `gemm_sparse`. Accumulation is in f32, but that one row of 2:4 in 4 bits adds four products in f16 first at the `Spirv` tier.

mod cases;
mod cpu;
mod matrix;
mod pattern;
mod plan;
mod spec;
mod tables;
#[cfg(test)]
mod tests;
mod weight;

pub use cpu::gemm_sparse;
pub use matrix::{Compress, FORMATS, SparseMatrix};
pub use pattern::{Pattern, prune};
pub use spec::{GEMM_SPARSE, GEMV_SPARSE};
pub use weight::SparseWeight;

use crate::error::Result;
use crate::kernel::{KernelSpec, Launch, Recorder, index32};
use crate::matmul::Activation;
use crate::tensor::{DType, Tensor};

/// out\[m, n\] = activation(Σₖ a\[m, k\] · W\[n, k\] + bias\[n\]) + residual\[m, n\].
#[derive(Clone, Copy, Debug)]
pub struct SparseLinear<'a> {
    /// \[M, K\], f32 or f16.
    pub a: &'a Tensor,
    /// \[N, K\].
    pub weight: &'a SparseWeight,
    /// \[M, N\], f32 or f16.
    pub out: &'a Tensor,
    /// \[N\], of the dtype of `out`.
    pub bias: Option<&'a Tensor>,
    pub activation: Activation,
    /// \[M, N\], of the dtype of `out`, in another buffer.
    pub residual: Option<&'a Tensor>,
}

impl<'a> SparseLinear<'a> {
    /// A plain product.
    pub fn new(a: &'a Tensor, weight: &'a SparseWeight, out: &'a Tensor) -> Self {
        SparseLinear { a, weight, out, bias: None, activation: Activation::None, residual: None }
    }
}

/// dtypes that activations and outputs may have.
const FLOATS: &[DType] = &[DType::F32, DType::F16];

/// Records a product with a sparse weight matrix.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) naming the argument, [`Error::Limit`](crate::Error::Limit) when an index would pass
/// 32 bits, [`Error::ForeignTensor`](crate::Error::ForeignTensor), [`Error::Unsupported`](crate::Error::Unsupported) for f16
/// without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::format::{Format, Group, ScaleSearch};
/// use wgmarlin::sparse::{self, Compress, Pattern, SparseLinear, SparseMatrix, SparseWeight};
/// use wgmarlin::{DType, Gpu};
/// let gpu = Gpu::new()?;
/// let (n, k) = (64, 128);
/// let how = Compress {
///     pattern: Pattern::TwoOfFour,
///     format: Format::Fp4,
///     group: Group::Size(32),
///     search: ScaleSearch::Mse,
///     importance: None,
/// };
/// let weight = SparseWeight::upload(&gpu, &SparseMatrix::from_dense(&vec![0.75; n * k], n, k, &how)?)?;
/// let a = gpu.tensor(&[1, k], &vec![1.0f32; k])?;
/// let out = gpu.alloc(DType::F32, &[1, n])?;
/// gpu.run(|r| sparse::record(r, &SparseLinear::new(&a, &weight, &out)))?;
/// assert_eq!(gpu.read::<f32>(&out)?[0], 48.0); // half of the weights are left
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &SparseLinear<'_>) -> Result<()> {
    record_with(recorder, plan::kernel_for(request.a.rows()), request)
}

/// As [`record`] with a given kernel, for the cases.
fn record_with(
    recorder: &mut Recorder<'_, '_>,
    spec: &'static KernelSpec,
    request: &SparseLinear<'_>,
) -> Result<()> {
    let SparseLinear { a, weight, out, bias, activation, residual } = *request;
    let kernel = spec.name;
    let (m, n, k) = (a.rows(), weight.n(), weight.k());
    a.expect(kernel, "a", FLOATS, &[m, k])?;
    out.expect(kernel, "out", FLOATS, &[m, n])?;
    if let Some(bias) = bias {
        bias.expect(kernel, "bias", &[out.dtype()], &[n])?;
    }
    if let Some(residual) = residual {
        residual.expect(kernel, "residual", &[out.dtype()], &[m, n])?;
    }
    weight.check_device(kernel, "weight", recorder.gpu())?;
    index32(kernel, "a", a.len())?;
    index32(kernel, "out", out.len())?;
    if m == 0 {
        return Ok(());
    }
    let choice = plan::Request { spec, m, a: a.dtype(), out: out.dtype() };
    let (tier, defines, needs) =
        recorder.choose(spec, |tier| plan::variant(recorder.gpu().caps(), tier, &choice, weight))?;
    for part in weight.parts() {
        // What is absent is never read; the values stand in, as they are never written.
        let (bias, residual) = (bias.unwrap_or(&part.values), residual.unwrap_or(&part.values));
        recorder.launch(Launch {
            spec,
            tier,
            groups: plan::groups(recorder.gpu().caps(), &defines, m, part.rows.len(), weight.packets()),
            defines: defines.clone(),
            needs,
            binds: &[a, &part.values, &part.indices, &part.scales, bias, residual, out],
            params: spec::SparseParams {
                m: index32(kernel, "a's rows", m)?,
                n: index32(kernel, "weight's rows", part.rows.len())?,
                k: index32(kernel, "weight's columns", k)?,
                packets: index32(kernel, "packets", weight.packets())?,
                index_words: index32(kernel, "words of indices", weight.index_words())?,
                groups: index32(kernel, "groups", weight.groups())?,
                group_shift: weight.group_shift(),
                n_first: index32(kernel, "weight's rows", part.rows.start)?,
                n_all: index32(kernel, "weight's rows", n)?,
                flags: u32::from(request.bias.is_some()) | u32::from(request.residual.is_some()) << 1,
                activation: activation as u32,
            },
        })?;
    }
    Ok(())
}

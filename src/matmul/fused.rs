//! Requests that fuse more: an RMS norm before a product, three products in one, a whole gated MLP.

use super::spec::LinearParams;
use super::{
    Activation, GateUp, Linear, NORM_QKV_GEMV, Product, QKV, QKV_GEMV, Weight, expect_rows, launch_parts,
    record, record_gate_up, tiles,
};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::kernel::{KernelSpec, Recorder};
use crate::norm::{self, RmsNorm};
use crate::tensor::{DType, Tensor};

/// RMS normalisation of the rows of `a` before a product: a\[m, k\] / √(mean_k a² + eps) · weight\[k\] (Zhang & Sennrich,
/// "Root Mean Square Layer Normalization", 2019).
///
/// Up to 8 rows it is part of the product's launch, and the normalised row is never rounded to f16. For more rows it is
/// a launch of its own, as every tile of the product would repeat it.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// \[K\], like `a`.
    pub weight: &'a Tensor,
    /// Added to the mean square; finite, ≥ 0.
    pub eps: f32,
    /// \[R, K\] with R ≥ M, like `a`, in a buffer of its own; needed for more than 8 rows only. Its contents need not
    /// be kept between calls.
    pub workspace: Option<&'a Tensor>,
}

impl<'a> Norm<'a> {
    /// Weight and epsilon, checked.
    pub(super) fn parts(
        norm: Option<Self>,
        kernel: &'static str,
        a: &Tensor,
    ) -> Result<(Option<&'a Tensor>, f32)> {
        let Some(Norm { weight, eps, .. }) = norm else { return Ok((None, 0.0)) };
        weight.expect(kernel, "norm's weight", &[a.dtype()], &[a.cols()])?;
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(Error::value(kernel, "norm's eps", eps, "finite and at least 0"));
        }
        Ok((Some(weight), eps))
    }

    /// Normalises `a` in a launch of its own, for `then`. Nothing is recorded if either is refused.
    pub(super) fn before(
        self,
        recorder: &mut Recorder<'_, '_>,
        kernel: &'static str,
        a: &Tensor,
        then: impl Fn(&mut Recorder<'_, '_>, &Tensor) -> Result<()>,
    ) -> Result<()> {
        Norm::parts(Some(self), kernel, a)?;
        let (m, k) = (a.rows(), a.cols());
        let Some(workspace) = self.workspace else {
            let want = format!("[at least {m}, {k}]: there are more than {} rows", tiles::MAX_GEMV_ROWS);
            return Err(Error::shape(kernel, "norm's workspace", "absent", want));
        };
        let rows = workspace.rows();
        workspace.expect(kernel, "norm's workspace", &[a.dtype()], &[rows.max(m), k])?;
        if workspace.overlaps(a) {
            return Err(Error::shape(kernel, "norm's workspace", "overlapping a", "memory of its own"));
        }
        let out = workspace.rows_view(recorder.gpu(), 0, m)?;
        let request = RmsNorm::new(a, self.weight, &out, self.eps);
        // The product may be limited to tiers that the norm does not have.
        recorder.all_or_nothing(|recorder| {
            recorder.at_any_tier(|recorder| norm::record(recorder, &request))?;
            then(recorder, &out)
        })
    }
}

/// Queries, keys and values by one product with the rows of their three weights, one below the other:
/// \[q | k | v\] = norm(a) · \[Wq; Wk; Wv\]ᵀ + bias.
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a> {
    /// \[M, K\], f32, f16 or bf16.
    pub a: &'a Tensor,
    /// \[Nq + Nk + Nv, K\].
    pub weight: &'a Weight,
    /// \[R, Nq\] with R ≥ M, like `a`; in bf16 Nq, Nk and Nv are even. Rows 0..M are written.
    pub q: &'a Tensor,
    /// \[R, Nk\] with R ≥ `kv_row` + M, like `a`.
    pub k: &'a Tensor,
    /// \[R, Nv\] with R ≥ `kv_row` + M, like `a`.
    pub v: &'a Tensor,
    /// The first row of `k` and `v` that is written: projections can write straight into a cache.
    pub kv_row: usize,
    /// \[Nq + Nk + Nv\], like `a`.
    pub bias: Option<&'a Tensor>,
    /// Normalises the rows of `a` first.
    pub norm: Option<Norm<'a>>,
}

/// Records the three products in one launch (with a norm of more than 8 rows, two). The kernels bind 8 buffers, with a norm of
/// up to 8 rows 9.
///
/// # Errors
/// As [`record`]; also [`Error::Shape`] if the outputs do not share the rows of the weight, or share a buffer with `a`.
///
/// ```no_run
/// use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
/// use wgmarlin::{DType, Gpu, matmul::{self, Norm, Qkv, Weight}};
/// let gpu = Gpu::new()?;
/// let (width, kv_width) = (128, 32);
/// let rows = width + 2 * kv_width;
/// let packed = PackedMatrix::quantise(
///     &vec![0.01; rows * width], rows, width, Format::Int4, Group::Size(32), ScaleSearch::Mse,
/// )?;
/// let weight = Weight::upload(&gpu, &packed)?;
/// let x = gpu.tensor(&[1, width], &vec![1.0f32; width])?;
/// let gains = gpu.tensor(&[width], &vec![1.0f32; width])?;
/// let q = gpu.alloc(DType::F32, &[1, width])?;
/// let cache = || gpu.alloc(DType::F32, &[64, kv_width]);
/// let (k, v) = (cache()?, cache()?);
/// gpu.run(|r| {
///     let norm = Some(Norm { weight: &gains, eps: 1e-5, workspace: None });
///     let (a, weight, q, k, v) = (&x, &weight, &q, &k, &v);
///     matmul::record_qkv(r, &Qkv { a, weight, q, k, v, kv_row: 7, bias: None, norm })
/// })?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_qkv(recorder: &mut Recorder<'_, '_>, request: &Qkv<'_>) -> Result<()> {
    let Qkv { a, weight, norm, .. } = *request;
    let few = tiles::few_rows(recorder.gpu(), a.rows(), weight, a.dtype(), (false, norm.is_some()));
    let spec = match norm {
        Some(_) if few => &NORM_QKV_GEMV,
        None if few => &QKV_GEMV,
        _ => &QKV,
    };
    qkv_with(recorder, spec, request)
}

/// As [`record_qkv`] with a given kernel.
pub(super) fn qkv_with(
    recorder: &mut Recorder<'_, '_>,
    spec: &'static KernelSpec,
    request: &Qkv<'_>,
) -> Result<()> {
    if let Some(norm) = request.norm.filter(|_| spec.name != NORM_QKV_GEMV.name) {
        return norm.before(recorder, spec.name, request.a, |recorder, a| {
            qkv_with(recorder, spec, &Qkv { a, norm: None, ..*request })
        });
    }
    let Qkv { a, weight, q, k, v, kv_row, bias, norm } = *request;
    let kernel = spec.name;
    let widths = [q.cols(), k.cols(), v.cols()];
    let n: usize = widths.iter().sum();
    if n != weight.n() {
        let want = format!("{n}, the columns of q, k and v: {widths:?}");
        return Err(Error::shape(kernel, "weight's rows", weight.n(), want));
    }
    for (what, tensor, first) in [("q", q, 0), ("k", k, kv_row), ("v", v, kv_row)] {
        expect_rows(kernel, what, tensor, (first, a.rows()), tensor.cols())?;
        tensor.expect(kernel, what, &[a.dtype()], tensor.shape())?;
    }
    for (what, one, other) in [("q and k", q, k), ("q and v", q, v), ("k and v", k, v)] {
        if one.overlaps(other) {
            return Err(Error::shape(kernel, what, "overlapping", "apart"));
        }
    }
    if let Some(bias) = bias {
        bias.expect(kernel, "bias", &[a.dtype()], &[n])?;
    }
    let (gamma, eps) = Norm::parts(norm, kernel, a)?;
    let params = LinearParams {
        flags: u32::from(bias.is_some()),
        scale: 1.0,
        eps,
        q_end: widths[0] as u32,
        k_end: (widths[0] + widths[1]) as u32,
        kv_row: kv_row as u32,
        ..Default::default()
    };
    let product = Product { a, weight, out: a.dtype(), columns: n, pair: false, params };
    launch_parts(recorder, spec, &product, |part| {
        [bias.unwrap_or(&part.words), q, k, v, gamma.unwrap_or(&part.words)]
    })
}

/// A gated MLP, out = (activation(norm(x) · Wgᵀ) ⊙ (norm(x) · Wuᵀ)) · Wdᵀ + residual (Shazeer, "GLU Variants Improve
/// Transformer", 2020).
#[derive(Clone, Copy, Debug)]
pub struct Mlp<'a> {
    /// \[M, K\], f32, f16 or bf16.
    pub x: &'a Tensor,
    /// \[2F, K\], rows of Wg and Wu in turn, as for [`GateUp::weight`].
    pub gate_up: &'a Weight,
    /// \[N, F\].
    pub down: &'a Weight,
    /// \[M, N\], f32, f16 or, of even N, bf16; not `x`.
    pub out: &'a Tensor,
    pub activation: Activation,
    /// Normalises the rows of `x` first. Its workspace may be absent: there is one in `workspace`.
    pub norm: Option<Norm<'a>>,
    /// \[M, N\], of the dtype of `out`, in another buffer; may be `x`.
    pub residual: Option<&'a Tensor>,
    pub workspace: &'a Workspace,
}

/// What lies between the launches of an [`Mlp`]. One serves all layers of a pass.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// \[rows, K\], for more than 8 rows.
    normed: Option<Tensor>,
    /// \[rows, F\].
    gated: Tensor,
}

impl Workspace {
    /// For up to `rows` rows of activations of `dtype` (f32, f16 or bf16) and weights of the shape of `gate_up`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Limit`].
    pub fn mlp(gpu: &Gpu, dtype: DType, rows: usize, gate_up: &Weight) -> Result<Workspace> {
        let many = rows > tiles::MAX_GEMV_ROWS;
        let normed = many.then(|| gpu.alloc(dtype, &[rows, gate_up.k()])).transpose()?;
        Ok(Workspace { normed, gated: gpu.alloc(dtype, &[rows.max(1), gate_up.n() / 2])? })
    }
}

/// Records a gated MLP: two launches (with a norm of more than 8 rows, three). Between them activations are rounded to the
/// dtype of the workspace.
///
/// # Errors
/// As [`record_gate_up`] and [`record`]; also [`Error::Shape`] if weights or workspace do not fit each other.
///
/// ```no_run
/// use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
/// use wgmarlin::{DType, Gpu, matmul::{self, Activation, Mlp, Weight, Workspace}};
/// let gpu = Gpu::new()?;
/// let (k, f) = (64, 128);
/// let pack = |n: usize, k: usize| {
///     PackedMatrix::quantise(&vec![0.1; n * k], n, k, Format::Fp4, Group::Size(32), ScaleSearch::Mse)
/// };
/// let gate_up = Weight::upload(&gpu, &PackedMatrix::interleave(&pack(f, k)?, &pack(f, k)?)?)?;
/// let down = Weight::upload(&gpu, &pack(k, f)?)?;
/// let x = gpu.tensor(&[1, k], &vec![0.5f32; k])?;
/// let out = gpu.alloc(DType::F32, &[1, k])?;
/// let workspace = Workspace::mlp(&gpu, DType::F32, 1, &gate_up)?;
/// let mlp = Mlp {
///     x: &x, gate_up: &gate_up, down: &down, out: &out, activation: Activation::Silu,
///     norm: None, residual: Some(&x), workspace: &workspace,
/// };
/// gpu.run(|r| matmul::record_mlp(r, &mlp))?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_mlp(recorder: &mut Recorder<'_, '_>, request: &Mlp<'_>) -> Result<()> {
    const KERNEL: &str = "mlp";
    let Mlp { x, gate_up, down, out, activation, norm, residual, workspace } = *request;
    let m = x.rows();
    if down.k().checked_mul(2) != Some(gate_up.n()) {
        let want = format!("half of the {} rows of gate_up", gate_up.n());
        return Err(Error::shape(KERNEL, "down's columns", down.k(), want));
    }
    let rows = workspace.gated.rows();
    if m > rows {
        return Err(Error::shape(KERNEL, "workspace's rows", rows, format!("at least {m}")));
    }
    workspace.gated.expect(KERNEL, "workspace", &[x.dtype()], &[rows, down.k()])?;
    let gated = workspace.gated.rows_view(recorder.gpu(), 0, m)?;
    let norm = norm.map(|n| Norm { workspace: n.workspace.or(workspace.normed.as_ref()), ..n });
    recorder.all_or_nothing(|recorder| {
        record_gate_up(recorder, &GateUp { a: x, weight: gate_up, out: &gated, activation, norm })?;
        record(recorder, &Linear { residual, ..Linear::new(&gated, down, out) })
    })
}

//! Batches of products of two tensors.

use super::batched_spec::{BatchedParams, GEMM_BATCHED, KINDS, Shapes};
use super::{Activation, Layout};
use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::tensor::{DType, Tensor};

/// out\[b\] = activation(scale · a\[b\] · w\[b\] + bias\[b\]) + residual\[b\] for every batch b, with sums in f32.
///
/// Every tensor may be f32, f16 or bf16, `a` and `w` each for itself.
#[derive(Clone, Copy, Debug)]
pub struct Batched<'a> {
    /// \[…, K\]: batch b is the M·K elements from b · `a_stride` on.
    pub a: &'a Tensor,
    /// Elements from one batch of `a` to the next: M·K where they are apart, 0 where all batches share one.
    pub a_stride: usize,
    /// \[…, K\] or \[…, N\], as `layout` says: batch b is the N·K elements from b · `w_stride` on.
    pub w: &'a Tensor,
    /// As `a_stride`.
    pub w_stride: usize,
    pub layout: Layout,
    /// \[B, M, N\]; N is even if it is bf16.
    pub out: &'a Tensor,
    /// \[N\] for all batches, or \[B, N\]; of the dtype of `out`.
    pub bias: Option<&'a Tensor>,
    pub activation: Activation,
    /// \[B, M, N\], of the dtype of `out`, in another buffer.
    pub residual: Option<&'a Tensor>,
    /// Of the sum; finite.
    pub scale: f32,
}

impl<'a> Batched<'a> {
    /// Plain products of \[B, M, K\] or, for all batches, \[M, K\] and of \[B, N, K\] or \[N, K\] (\[B, K, N\] or \[K, N\]). Where
    /// batches of `a` or `w` have more rows than these, the first are taken.
    pub fn new(a: &'a Tensor, w: &'a Tensor, layout: Layout, out: &'a Tensor) -> Self {
        let (k, n) = (a.cols(), out.cols());
        let m = out.shape().get(1).copied().unwrap_or(0);
        let w_rows = if layout == Layout::Nk { n } else { k };
        // One batch alone serves all.
        let stride = |rows: usize, tensor: &Tensor| match *tensor.shape() {
            [1, _, _] => 0,
            [_, rows, cols] => rows * cols,
            _ if tensor.rows() > rows => rows.saturating_mul(tensor.cols()),
            _ => 0,
        };
        Batched {
            a,
            a_stride: stride(m, a),
            w,
            w_stride: stride(w_rows, w),
            layout,
            out,
            bias: None,
            activation: Activation::None,
            residual: None,
            scale: 1.0,
        }
    }
}

/// Records a batch of products.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Limit`] when an index would pass 31 bits,
/// [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, matmul::{self, Batched, Layout}};
/// let gpu = Gpu::new()?;
/// // Two heads of attention scores, three queries by four keys that the heads share.
/// let q = gpu.tensor(&[2, 3, 16], &[1.0f32; 96])?;
/// let k = gpu.tensor(&[4, 16], &[0.5f32; 64])?;
/// let scores = gpu.alloc(DType::F32, &[2, 3, 4])?;
/// let request = Batched { scale: 0.25, ..Batched::new(&q, &k, Layout::Nk, &scores) };
/// gpu.run(|r| matmul::record_batched(r, &request))?;
/// assert_eq!(gpu.read::<f32>(&scores)?, [2.0; 24]);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_batched(recorder: &mut Recorder<'_, '_>, request: &Batched<'_>) -> Result<()> {
    const KERNEL: &str = GEMM_BATCHED.name;
    let Batched { a, a_stride, w, w_stride, layout, out, bias, activation, residual, scale } = *request;
    let &[batches, m, n] = out.shape() else {
        return Err(Error::shape(KERNEL, "out", out.shape(), "[B, M, N]"));
    };
    out.expect(KERNEL, "out", KINDS, out.shape())?;
    if out.dtype() == DType::Bf16 && !n.is_multiple_of(2) {
        return Err(Error::shape(KERNEL, "out's columns", n, "an even number in bf16"));
    }
    a.expect(KERNEL, "a", KINDS, a.shape())?;
    w.expect(KERNEL, "w", KINDS, w.shape())?;
    let k = a.cols();
    let (w_rows, w_cols) = if layout == Layout::Nk { (n, k) } else { (k, n) };
    if w.cols() != w_cols {
        return Err(Error::shape(KERNEL, "w's columns", w.cols(), format!("{w_cols}, of {layout:?}")));
    }
    for (what, tensor, stride, rows) in [("a", a, a_stride, m), ("w", w, w_stride, w_rows)] {
        if let &[of, own_rows, cols] = tensor.shape()
            && (own_rows < rows || of != 1 && of < batches)
            && (stride == 0 || stride == own_rows * cols)
        {
            let want = format!("[{batches} or 1, {rows}, {cols}] at least");
            return Err(Error::shape(KERNEL, what, tensor.shape(), want));
        }
        let one = rows.checked_mul(tensor.cols());
        let end = batches.saturating_sub(1).checked_mul(stride).and_then(|at| at.checked_add(one?));
        if batches > 0 && end.is_none_or(|end| end > tensor.len()) {
            let want = format!("at least (B − 1) · {what}_stride + {rows} · {}", tensor.cols());
            return Err(Error::shape(KERNEL, format!("{what}'s elements"), tensor.len(), want));
        }
    }
    let mut stride_bias = 0;
    if let Some(bias) = bias {
        let shape: &[usize] = if bias.shape().len() == 1 { &[n] } else { &[batches, n] };
        bias.expect(KERNEL, "bias", &[out.dtype()], shape)?;
        stride_bias = if shape.len() == 1 { 0 } else { n };
    }
    if let Some(residual) = residual {
        residual.expect(KERNEL, "residual", &[out.dtype()], out.shape())?;
    }
    if !scale.is_finite() {
        return Err(Error::value(KERNEL, "scale", scale, "finite"));
    }
    for (what, tensor) in [("a", a), ("w", w), ("out", out)] {
        index32(KERNEL, what, tensor.len())?;
    }
    if out.is_empty() {
        return Ok(());
    }
    // A lone batch has any stride.
    let (a_stride, w_stride) = if batches == 1 { (0, 0) } else { (a_stride, w_stride) };
    let dtypes = (a.dtype(), w.dtype(), out.dtype());
    let shapes = Shapes { dtypes, layout, batches, m, n, k, strides: (a_stride, w_stride) };
    let caps = recorder.gpu().caps();
    let (tier, defines, needs) = recorder.choose(&GEMM_BATCHED, |tier| shapes.plan(caps, tier))?;
    let groups = shapes.groups(tier, &defines);
    recorder.launch(Launch {
        spec: &GEMM_BATCHED,
        tier,
        defines,
        needs,
        // Bindings without a tensor are never read.
        binds: &[a, w, bias.unwrap_or(w), residual.unwrap_or(w), out],
        params: BatchedParams {
            m: index32(KERNEL, "M", m)?,
            n: index32(KERNEL, "N", n)?,
            k: index32(KERNEL, "K", k)?,
            batches: index32(KERNEL, "B", batches)?,
            stride_a: index32(KERNEL, "a_stride", a_stride)?,
            stride_w: index32(KERNEL, "w_stride", w_stride)?,
            stride_bias: index32(KERNEL, "N", stride_bias)?,
            flags: u32::from(bias.is_some()) | u32::from(residual.is_some()) << 1,
            activation: activation as u32,
            scale,
        },
        groups,
    })
}

//! Products with weight matrices: out = epilogue(a · Wᵀ), with W dense or quantised.
//!
//! [`record`] picks the kernel by the number of rows M of the activations: `qgemv` up to 8 (every weight is read
//! once), then the tiled `gemm` (dense formats) or `qgemm` (quantised formats).
//!
//! Accumulation is in f32 on every tier. The `Coop` tier rounds dequantised weights to f16, the others do not.

mod cases;
mod cpu;
mod plan;
mod spec;
mod weight;

pub(crate) use cases::{pack, places};
pub use cpu::{activate, gate_up, linear};
pub use spec::{GATE_UP, GATE_UP_GEMV, GEMM, QGEMM, QGEMV};
pub(crate) use spec::{packet, weight_defines};
pub use weight::Weight;
pub(crate) use weight::{FLOATS, Part, arrange_fp4, group_shift, upload_halves};

use crate::error::{Error, Result};
use crate::kernel::{KernelSpec, Launch, Recorder};
use crate::tensor::{DType, Tensor};

/// Applied to the biased sum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u32)]
pub enum Activation {
    #[default]
    None = 0,
    /// x · σ(x)
    Silu = 1,
    /// x · Φ(x), by the error function.
    Gelu = 2,
    /// GELU's tanh approximation.
    GeluTanh = 3,
    /// x · σ(1.702 x)
    GeluSigmoid = 4,
    Relu = 5,
}

impl Activation {
    pub const ALL: [Activation; 6] = [
        Activation::None,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::GeluSigmoid,
        Activation::Relu,
    ];
}

/// out\[out_row + m, n\] = activation(Σₖ a\[m, k\] · W\[n, k\] + bias\[n\]) + residual\[m, n\].
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// \[M, K\], f32 or f16.
    pub a: &'a Tensor,
    /// \[N, K\].
    pub weight: &'a Weight,
    /// \[R, N\] with R ≥ `out_row` + M; f32 or f16.
    pub out: &'a Tensor,
    /// The first row of `out` that is written: projections can write straight into a cache.
    pub out_row: usize,
    /// \[N\], of the dtype of `out`.
    pub bias: Option<&'a Tensor>,
    pub activation: Activation,
    /// \[M, N\], of the dtype of `out`, in another buffer.
    pub residual: Option<&'a Tensor>,
}

impl<'a> Linear<'a> {
    /// A plain product.
    pub fn new(a: &'a Tensor, weight: &'a Weight, out: &'a Tensor) -> Self {
        Linear { a, weight, out, out_row: 0, bias: None, activation: Activation::None, residual: None }
    }
}

/// Records a product with a weight matrix.
///
/// # Errors
/// [`Error::Shape`] naming the argument, [`Error::Limit`] when an output index would pass 32 bits,
/// [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
/// use wgmarlin::{DType, Gpu, matmul::{self, Linear, Weight}};
/// let gpu = Gpu::new()?;
/// let (n, k) = (64, 128);
/// let packed =
///     PackedMatrix::quantise(&vec![0.5; n * k], n, k, Format::Fp4, Group::Size(32), ScaleSearch::Mse)?;
/// let weight = Weight::upload(&gpu, &packed)?;
/// let a = gpu.tensor(&[1, k], &vec![1.0f32; k])?;
/// let out = gpu.alloc(DType::F32, &[1, n])?;
/// gpu.run(|r| matmul::record(r, &Linear::new(&a, &weight, &out)))?;
/// assert_eq!(gpu.read::<f32>(&out)?[0], 64.0);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Linear<'_>) -> Result<()> {
    record_with(recorder, plan::kernel_for(request.a.rows(), request.weight.format()), request)
}

/// As [`record`] with a given kernel, for the cases.
pub(crate) fn record_with(
    recorder: &mut Recorder<'_, '_>,
    spec: &'static KernelSpec,
    request: &Linear<'_>,
) -> Result<()> {
    let Linear { a, weight, out, out_row, bias, activation, residual } = *request;
    let kernel = spec.name;
    let m = a.rows();
    for (what, tensor) in [("bias", bias), ("residual", residual)] {
        let shape: &[usize] = if what == "bias" { &[weight.n()] } else { &[m, weight.n()] };
        if let Some(tensor) = tensor {
            tensor.expect(kernel, what, &[out.dtype()], shape)?;
        }
    }
    let flags = u32::from(bias.is_some()) | u32::from(residual.is_some()) << 1;
    launch_parts(
        recorder,
        spec,
        &Product { a, weight, out, out_row, activation, pair: false },
        flags,
        |part| {
            // Unused bindings are never read; the weights stand in, as they are never written.
            [bias.unwrap_or(&part.words), residual.unwrap_or(&part.words)]
        },
    )
}

/// out\[m, n\] = activation(a\[m\] · gate\[n\]) · (a\[m\] · up\[n\]): the first half of a gated MLP (Shazeer, "GLU Variants
/// Improve Transformer", 2020). Gate and up are one [`Weight`] of 2N rows that alternate, made with
/// [`PackedMatrix::interleave`](crate::format::PackedMatrix::interleave), so one launch reads `a` once.
#[derive(Clone, Copy, Debug)]
pub struct GateUp<'a> {
    /// \[M, K\], f32 or f16.
    pub a: &'a Tensor,
    /// \[2N, K\]: rows gate 0, up 0, gate 1, up 1, …
    pub weight: &'a Weight,
    /// \[M, N\], f32 or f16.
    pub out: &'a Tensor,
    pub activation: Activation,
}

/// Records the first half of a gated MLP.
///
/// # Errors
/// As [`record`]; also [`Error::Shape`] if the weight has an odd number of rows.
///
/// ```no_run
/// use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
/// use wgmarlin::{DType, Gpu, matmul::{self, Activation, GateUp, Weight}};
/// let gpu = Gpu::new()?;
/// let pack = |v: f32| {
///     PackedMatrix::quantise(&[v; 64 * 128], 64, 128, Format::Int8, Group::Size(32), ScaleSearch::Mse)
/// };
/// let weight = Weight::upload(&gpu, &PackedMatrix::interleave(&pack(0.5)?, &pack(0.25)?)?)?;
/// let a = gpu.tensor(&[1, 128], &[0.01f32; 128])?;
/// let out = gpu.alloc(DType::F32, &[1, 64])?;
/// let activation = Activation::Silu;
/// gpu.run(|r| matmul::record_gate_up(r, &GateUp { a: &a, weight: &weight, out: &out, activation }))?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_gate_up(recorder: &mut Recorder<'_, '_>, request: &GateUp<'_>) -> Result<()> {
    let GateUp { a, weight, out, activation } = *request;
    let spec = if a.rows() <= plan::MAX_GEMV_ROWS { &GATE_UP_GEMV } else { &GATE_UP };
    if !weight.n().is_multiple_of(2) {
        return Err(Error::shape(
            spec.name,
            "weight's rows",
            weight.n(),
            "an even number: gate, up, gate, …",
        ));
    }
    let product = Product { a, weight, out, out_row: 0, activation, pair: true };
    launch_parts(recorder, spec, &product, 0, |part| [&part.words, &part.words])
}

/// What both kinds of product have in common.
struct Product<'a> {
    a: &'a Tensor,
    weight: &'a Weight,
    out: &'a Tensor,
    out_row: usize,
    activation: Activation,
    pair: bool,
}

fn launch_parts<'a>(
    recorder: &mut Recorder<'_, '_>,
    spec: &'static KernelSpec,
    product: &Product<'a>,
    flags: u32,
    extra: impl Fn(&'a Part) -> [&'a Tensor; 2],
) -> Result<()> {
    let Product { a, weight, out, out_row, activation, pair } = *product;
    let kernel = spec.name;
    let (m, n, k) = (a.rows(), weight.n(), weight.k());
    let columns = if pair { n / 2 } else { n };
    a.expect(kernel, "a", FLOATS, &[m, k])?;
    let rows = out.rows();
    out.expect(kernel, "out", FLOATS, &[rows, columns])?;
    if out_row.checked_add(m).is_none_or(|end| end > rows) {
        let want = format!("at least out_row + M = {out_row} + {m}");
        return Err(Error::shape(kernel, "out's rows", rows, want));
    }
    weight.check_device(kernel, "weight", recorder.gpu())?;
    for (what, elements) in [("a", a.len()), ("out", out.len())] {
        if elements as u64 >= 1 << 32 {
            let what = format!("{kernel}: {what}");
            return Err(Error::Limit {
                what,
                name: "elements",
                need: elements as u64,
                max: u64::from(u32::MAX),
            });
        }
    }
    if m == 0 {
        return Ok(());
    }
    let request = plan::Request { spec, m, n, a: a.dtype(), out: out.dtype(), pair };
    let (tier, defines, needs) =
        recorder.choose(spec, |tier| plan::variant(recorder.gpu().caps(), tier, &request, weight))?;
    for part in weight.parts() {
        let [bias, residual] = extra(part);
        recorder.launch(Launch {
            spec,
            tier,
            groups: plan::groups(&defines, tier, m, part.rows.len()),
            defines: defines.clone(),
            needs,
            binds: &[a, &part.words, &part.scales, &part.zeros, bias, residual, out],
            params: spec::LinearParams {
                m: m as u32,
                n: part.rows.len() as u32,
                k: k as u32,
                packets: weight.packets() as u32,
                groups: weight.groups() as u32,
                group_shift: weight.group_shift(),
                n_first: part.rows.start as u32,
                n_all: columns as u32,
                out_row: out_row as u32,
                flags,
                activation: activation as u32,
            },
        })?;
    }
    Ok(())
}

/// dtype pairs (a, out) that the kernels are specialised on.
pub(crate) const DTYPES: [(DType, DType); 4] =
    [(DType::F32, DType::F32), (DType::F16, DType::F16), (DType::F16, DType::F32), (DType::F32, DType::F16)];

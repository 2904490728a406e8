//! Products with weight matrices: out = epilogue(a · Wᵀ), with W dense or quantised.
//!
//! [`record`] picks the kernel by the number of rows M of the activations: `qgemv` for few (every weight is read once), then the
//! tiled `gemm` (dense formats) or `qgemm` (quantised formats). Few are up to 8; of quantised formats, with activations in f16 or
//! bf16 and no norm, up to 4 beside matrices of side 16 and 32 lanes, and up to 2 (FP4, INT4: 1) at the `Spirv` tier.
//!
//! Accumulation is in f32 on every tier, but that one row may add four products of FP4 codes, or two of NF4's values, in f16 first. Tiers with matrices (`Coop`,
//! `Spirv`, `Msl`) round dequantised weights to f16. They also take activations in bf16, and both operands of a batch, as f16: those
//! past ±65504 as ±65504, those below 6·10⁻⁵ with fewer bits.
//!
//! Outputs in bf16 are stored two a word: their rows must be of even length.

mod arrange;
mod batched;
mod batched_cases;
mod batched_coop;
mod batched_few;
mod batched_spec;
mod cases;
mod cpu;
mod extreme_cases;
mod fragment_cases;
mod fused;
mod fused_cases;
mod fused_spec;
mod gemv_few;
mod gemv_fragments;
mod gemv_tiles;
#[cfg(test)]
mod invariance_tests;
mod msl;
mod perf_cases;
mod plan;
mod spec;
#[cfg(test)]
mod tests;
mod tiles;
mod weight;

pub use arrange::ARRANGE_ROWS;
pub use batched::{Batched, record_batched};
pub use batched_spec::GEMM_BATCHED;
pub(crate) use cases::{pack, places};
pub use cpu::{Batches, activate, batched, gate_up, linear, mlp};
pub use fused::{Mlp, Norm, Qkv, Workspace, record_mlp, record_qkv};
pub use fused_spec::{NORM_GATE_UP_GEMV, NORM_QGEMV, NORM_QKV_GEMV, QKV, QKV_GEMV};
pub(crate) use gemv_fragments::whole_rounds;
pub(crate) use msl::MslTile;
pub(crate) use plan::coop_groups;
pub use spec::{GATE_UP, GATE_UP_GEMV, GEMM, QGEMM, QGEMV};
pub(crate) use spec::{coop_defines, coop_needs, packet, weight_defines, with_book};
pub(crate) use tiles::{CoopTile, choose_coop, coop_tiles};
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

/// How a matrix of K rows to be multiplied by lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// \[N, K\]: a · wᵀ.
    Nk,
    /// \[K, N\]: a · w.
    Kn,
}

/// out\[out_row + m, n\] = activation(scale · Σₖ norm(a)\[m, k\] · W\[n, k\] + bias\[n\]) + residual\[m, n\].
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// \[M, K\], f32, f16 or bf16.
    pub a: &'a Tensor,
    /// \[N, K\].
    pub weight: &'a Weight,
    /// \[R, N\] with R ≥ `out_row` + M; f32, f16 or, of even N, bf16.
    pub out: &'a Tensor,
    /// The first row of `out` that is written: projections can write straight into a cache.
    pub out_row: usize,
    /// \[N\], of the dtype of `out`.
    pub bias: Option<&'a Tensor>,
    pub activation: Activation,
    /// \[M, N\], of the dtype of `out`, in another buffer.
    pub residual: Option<&'a Tensor>,
    /// Of the sum; finite.
    pub scale: f32,
    /// Normalises the rows of `a` first.
    pub norm: Option<Norm<'a>>,
}

impl<'a> Linear<'a> {
    /// A plain product.
    pub fn new(a: &'a Tensor, weight: &'a Weight, out: &'a Tensor) -> Self {
        Linear {
            a,
            weight,
            out,
            out_row: 0,
            bias: None,
            activation: Activation::None,
            residual: None,
            scale: 1.0,
            norm: None,
        }
    }
}

/// Records a product with a weight matrix.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Limit`] when an output index would pass 32 bits,
/// [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
/// use wgmarlin::{DType, Gpu, matmul::{self, Linear, Weight}};
/// let gpu = Gpu::new()?;
/// let (n, k) = (64, 128);
/// let packed =
///     PackedMatrix::quantise(&vec![0.75; n * k], n, k, Format::Fp4, Group::Size(32), ScaleSearch::Mse)?;
/// let weight = Weight::upload(&gpu, &packed)?;
/// let a = gpu.tensor(&[1, k], &vec![1.0f32; k])?;
/// let out = gpu.alloc(DType::F32, &[1, n])?;
/// gpu.run(|r| matmul::record(r, &Linear::new(&a, &weight, &out)))?;
/// assert_eq!(gpu.read::<f32>(&out)?[0], 96.0);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Linear<'_>) -> Result<()> {
    let m = request.a.rows();
    let fused = request.norm.is_some() && m <= tiles::MAX_GEMV_ROWS;
    let plain = || tiles::kernel_for(recorder.gpu(), m, request.weight, request.a.dtype());
    let spec = if fused { &NORM_QGEMV } else { plain() };
    record_with(recorder, spec, request)
}

/// As [`record`] with a given kernel, for the cases.
pub(crate) fn record_with(
    recorder: &mut Recorder<'_, '_>,
    spec: &'static KernelSpec,
    request: &Linear<'_>,
) -> Result<()> {
    if let Some(norm) = request.norm.filter(|_| spec.name != NORM_QGEMV.name) {
        return norm.before(recorder, spec.name, request.a, |recorder, a| {
            record_with(recorder, spec, &Linear { a, norm: None, ..*request })
        });
    }
    let Linear { a, weight, out, out_row, bias, activation, residual, scale, norm } = *request;
    let kernel = spec.name;
    let (m, n) = (a.rows(), weight.n());
    expect_rows(kernel, "out", out, (out_row, m), n)?;
    for (what, tensor) in [("bias", bias), ("residual", residual)] {
        let shape: &[usize] = if what == "bias" { &[n] } else { &[m, n] };
        if let Some(tensor) = tensor {
            tensor.expect(kernel, what, &[out.dtype()], shape)?;
        }
    }
    if !scale.is_finite() {
        return Err(Error::value(kernel, "scale", scale, "finite"));
    }
    let (gamma, eps) = Norm::parts(norm, kernel, a)?;
    let params = spec::LinearParams {
        out_row: out_row as u32,
        flags: u32::from(bias.is_some()) | u32::from(residual.is_some()) << 1,
        activation: activation as u32,
        scale,
        eps,
        ..Default::default()
    };
    let product = Product { a, weight, out: out.dtype(), columns: n, pair: false, params };
    launch_parts(recorder, spec, &product, |part| {
        // Unused bindings are never read; the weights stand in, as they are never written.
        let words = &part.words;
        [bias.unwrap_or(words), residual.unwrap_or(words), out, gamma.unwrap_or(words), words]
    })
}

/// out\[m, n\] = activation(a\[m\] · gate\[n\]) · (a\[m\] · up\[n\]): the first half of a gated MLP (Shazeer, "GLU Variants
/// Improve Transformer", 2020). Gate and up are one [`Weight`] of 2N rows that alternate, made with
/// [`PackedMatrix::interleave`](crate::format::PackedMatrix::interleave), so one launch reads `a` once.
#[derive(Clone, Copy, Debug)]
pub struct GateUp<'a> {
    /// \[M, K\], f32, f16 or bf16.
    pub a: &'a Tensor,
    /// \[2N, K\]: rows gate 0, up 0, gate 1, up 1, …
    pub weight: &'a Weight,
    /// \[M, N\], f32, f16 or, of even N, bf16; with a norm, of the dtype of `a`.
    pub out: &'a Tensor,
    pub activation: Activation,
    /// Normalises the rows of `a` first.
    pub norm: Option<Norm<'a>>,
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
/// let request = GateUp { a: &a, weight: &weight, out: &out, activation: Activation::Silu, norm: None };
/// gpu.run(|r| matmul::record_gate_up(r, &request))?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_gate_up(recorder: &mut Recorder<'_, '_>, request: &GateUp<'_>) -> Result<()> {
    let GateUp { a, weight, norm, .. } = *request;
    let few = tiles::few_rows(recorder.gpu(), a.rows(), weight, a.dtype(), (true, norm.is_some()));
    let spec = match norm {
        Some(_) if few => &NORM_GATE_UP_GEMV,
        None if few => &GATE_UP_GEMV,
        _ => &GATE_UP,
    };
    gate_up_with(recorder, spec, request)
}

/// As [`record_gate_up`] with a given kernel.
fn gate_up_with(
    recorder: &mut Recorder<'_, '_>,
    spec: &'static KernelSpec,
    request: &GateUp<'_>,
) -> Result<()> {
    let GateUp { a, weight, out, activation, norm } = *request;
    if norm.is_some() {
        out.expect(NORM_GATE_UP_GEMV.name, "out", &[a.dtype()], out.shape())?;
    }
    if let Some(norm) = norm.filter(|_| spec.name != NORM_GATE_UP_GEMV.name) {
        return norm.before(recorder, spec.name, a, |recorder, a| {
            gate_up_with(recorder, spec, &GateUp { a, norm: None, ..*request })
        });
    }
    if !weight.n().is_multiple_of(2) {
        return Err(Error::shape(
            spec.name,
            "weight's rows",
            weight.n(),
            "an even number: gate, up, gate, …",
        ));
    }
    let columns = weight.n() / 2;
    expect_rows(spec.name, "out", out, (0, a.rows()), columns)?;
    let (gamma, eps) = Norm::parts(norm, spec.name, a)?;
    let params = spec::LinearParams { activation: activation as u32, eps, ..Default::default() };
    let product = Product { a, weight, out: out.dtype(), columns, pair: true, params };
    launch_parts(recorder, spec, &product, |part| {
        let words = &part.words;
        [words, words, out, gamma.unwrap_or(words), words]
    })
}

/// What all kinds of product have in common.
struct Product<'a> {
    a: &'a Tensor,
    weight: &'a Weight,
    /// Of all outputs.
    out: DType,
    /// Of all outputs together.
    columns: usize,
    pair: bool,
    /// What the weight does not decide.
    params: spec::LinearParams,
}

/// An output of `columns` columns, of which `m` rows from `first` on are written.
fn expect_rows(
    kernel: &'static str,
    what: &str,
    out: &Tensor,
    (first, m): (usize, usize),
    columns: usize,
) -> Result<()> {
    let rows = out.rows();
    out.expect(kernel, what, FLOATS, &[rows, columns])?;
    if out.dtype() == DType::Bf16 && !columns.is_multiple_of(2) {
        return Err(Error::shape(kernel, format!("{what}'s columns"), columns, "an even number in bf16"));
    }
    if first.checked_add(m).is_none_or(|end| end > rows) {
        let row = if what == "out" { "out_row".to_string() } else { format!("{what}'s first row") };
        let want = format!("at least {row} + M = {first} + {m}");
        return Err(Error::shape(kernel, format!("{what}'s rows"), rows, want));
    }
    expect_indexable(kernel, what, out)
}

fn expect_indexable(kernel: &'static str, what: &str, tensor: &Tensor) -> Result<()> {
    let (need, max) = (tensor.len() as u64, u64::from(u32::MAX));
    if need > max {
        return Err(Error::Limit { what: format!("{kernel}: {what}"), name: "elements", need, max });
    }
    Ok(())
}

/// Records a launch for each part of the weight; `extra` gives the bindings from 4 on, and what is left over.
fn launch_parts<'a>(
    recorder: &mut Recorder<'_, '_>,
    spec: &'static KernelSpec,
    product: &Product<'a>,
    extra: impl Fn(&'a Part) -> [&'a Tensor; 5],
) -> Result<()> {
    let Product { a, weight, out, columns, pair, params } = *product;
    let kernel = spec.name;
    let (m, n, k) = (a.rows(), weight.n(), weight.k());
    a.expect(kernel, "a", FLOATS, &[m, k])?;
    weight.check_device(kernel, "weight", recorder.gpu())?;
    expect_indexable(kernel, "a", a)?;
    let sums = spec::sums(out, pair);
    if let Some(part) = weight.parts().iter().find(|p| !p.rows.start.is_multiple_of(sums)) {
        let want = format!("a multiple of {sums}, as that many rows make what is stored at once");
        return Err(Error::shape(kernel, "first row of a part of weight", part.rows.start, want));
    }
    if m == 0 {
        return Ok(());
    }
    let request = plan::Request { spec, m, n, a: a.dtype(), out, pair };
    let (tier, defines, needs) =
        recorder.choose(spec, |tier| plan::variant(recorder.gpu().caps(), tier, &request, weight))?;
    let operands = |a, part: &'a Part| {
        let [b4, b5, b6, b7, b8] = extra(part);
        [a, &part.words, &part.scales, &part.zeros, b4, b5, b6, b7, b8]
    };
    let bound = spec.bindings.len().min(9);
    let arranged = match plan::arrangement(&defines) {
        Some(order) => {
            // With a itself, so that all tiers refuse the same requests.
            weight.parts().iter().try_for_each(|part| recorder.check(spec, &operands(a, part)[..bound]))?;
            Some(arrange::record(recorder, a, order)?)
        }
        None => None,
    };
    for part in weight.parts() {
        let binds = operands(arranged.as_ref().unwrap_or(a), part);
        recorder.launch(Launch {
            spec,
            tier,
            groups: plan::groups(recorder.gpu().caps(), &defines, m, part.rows.len()),
            defines: defines.clone(),
            needs,
            binds: &binds[..bound],
            params: spec::LinearParams {
                m: m as u32,
                n: part.rows.len() as u32,
                k: k as u32,
                packets: weight.packets() as u32,
                groups: weight.groups() as u32,
                group_shift: weight.group_shift(),
                n_first: part.rows.start as u32,
                n_all: columns as u32,
                ..params
            },
        })?;
    }
    Ok(())
}

/// dtype pairs (a, out) that the kernels are specialised on: each of [`FLOATS`] with each.
const DTYPES: [(DType, DType); 9] = {
    let mut all = [(DType::F32, DType::F32); 9];
    let mut i = 0;
    while i < 9 {
        all[i] = (FLOATS[i / 3], FLOATS[i % 3]);
        i += 1;
    }
    all
};

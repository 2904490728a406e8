//! Differential attention (Ye et al., "Differential Transformer", 2024): a head has two softmaxes over the same values,
//! and what the second gives is subtracted, so that what both attend to without need cancels:
//!
//! out = factor · norm(softmax(scale·Q1·K1ᵀ + mask)·V − λ·softmax(scale·Q2·K2ᵀ + mask)·V)
//!
//! * [`record`]: keys and values in tensors, any number of queries;
//! * [`record_paged`]: over the blocks of a [`KvBlocks`] of any format, contiguous or paged.
//!
//! # Layout
//! The two queries of a head lie one behind the other, \[.., Hq, 2, D\], and so do the two keys, \[.., Hkv, 2, D\]: with a
//! projection whose 2·H heads come in pairs, as in the authors' own code, that is what it gives. Where checkpoints have all first
//! heads before all second ones (transformers' DiffLlama), the rows of the projections are put in this order when they
//! are loaded.
//!
//! # How
//! To [`attention`] the two keys are one of width 2·D. `diff_queries` pads each query with D zeros, before or
//! behind, which gives 2·Hq query heads that each meet their own half of a key; attention then runs once, with all its
//! options, formats and tiers, and reads keys and values once; `diff_combine` does the rest. Decoding, which waits for
//! memory, thus costs what an attention with these keys costs. For prompts the zeros are a third more arithmetic (2·D + Dv
//! for D + Dv, with Dv = 2·D).

mod cases;
mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::{Subtraction, attention_diff, combine, lambda, lse};
pub use spec::{DIFF_COMBINE, DIFF_QUERIES};

use crate::attention::{self, AttentionDecode, AttentionPaged, Options};
use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, Tier, index32};
use crate::kv::{Context, KvBlocks};
use crate::tensor::{DType, Tensor};

/// What errors name.
const OP: &str = "attention_diff";

/// Where λ comes from.
#[derive(Clone, Copy, Debug)]
pub enum Lambda<'a> {
    /// F32 \[Hq\], or \[1\] for all heads.
    Given(&'a Tensor),
    /// λ = exp(q₁·k₁) − exp(q₂·k₂) + init.
    Learned {
        /// F32 \[Hq, D\] each, or \[D\] for all heads.
        q: [&'a Tensor; 2],
        /// Likewise.
        k: [&'a Tensor; 2],
        /// The paper's λ_init, 0.8 − 0.6·exp(−0.3·layer) with layers counted from 0; finite.
        init: f32,
    },
}

/// The RMS norm of each head's result.
#[derive(Clone, Copy, Debug)]
pub struct SubNorm<'a> {
    /// \[Dv\], like the queries; `None`: ones.
    pub weight: Option<&'a Tensor>,
    /// Added to the mean square; finite, ≥ 0.
    pub eps: f32,
}

/// How the results of a head's two softmaxes become one.
#[derive(Clone, Copy, Debug)]
pub struct Difference<'a> {
    pub lambda: Lambda<'a>,
    pub norm: Option<SubNorm<'a>>,
    /// The paper's 1 − λ_init, or 1 for none; finite.
    pub factor: f32,
}

/// Memory for what lies between the kernels. Its contents need not be kept between calls; one serves all layers of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Scratch<'a> {
    /// Like the queries, any shape with at least B·Sq·Hq·4·D elements.
    pub queries: &'a Tensor,
    /// Like the queries, any shape with at least B·Sq·Hq·2·Dv elements.
    pub parts: &'a Tensor,
    /// F32, any shape with at least as many elements as [`attention::workspace_len`] says for 2·Hq query heads
    /// ([`attention::merged_workspace_len`] with sinks or an LSE output).
    pub workspace: &'a Tensor,
}

/// Differential attention over tensors.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDiff<'a> {
    /// \[B, Sq, Hq, 2, D\], f32 or f16; D a multiple of 4 up to 128.
    pub q: &'a Tensor,
    /// \[B, C, Hkv, 2, D\], like `q`; Hq a multiple of Hkv.
    pub k: &'a Tensor,
    /// \[B, C, Hkv, Dv\], like `q`; Dv a multiple of 8 up to 256 (the paper has 2·D).
    pub v: &'a Tensor,
    /// \[B, Sq, Hq, Dv\], like `q`.
    pub out: &'a Tensor,
    /// The first `kv_len` of the C rows are valid.
    pub kv_len: usize,
    /// Bias, sinks and LSE are of 2·Hq heads, the two of a head one behind the other.
    pub options: Options<'a>,
    pub difference: Difference<'a>,
    pub scratch: Scratch<'a>,
}

/// Differential attention over a cache in blocks.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDiffPaged<'a> {
    /// \[B, Sq, Hq, 2, D\], f32 or f16; D a multiple of 4 up to 128.
    pub q: &'a Tensor,
    /// Its keys have width 2·D: both keys of a head. Values of width Dv; Hq a multiple of its heads.
    pub cache: &'a KvBlocks,
    /// Which of its rows belong to which of the B sequences.
    pub context: Context<'a>,
    /// \[B, Sq, Hq, Dv\], like `q`.
    pub out: &'a Tensor,
    /// As [`AttentionDiff::options`].
    pub options: Options<'a>,
    pub difference: Difference<'a>,
    pub scratch: Scratch<'a>,
}

/// Records differential attention over tensors: three launches, or four where the keys are split.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Limit`] from 2³¹ elements of padded queries,
/// [`Error::Unsupported`] for f16 without `SHADER_F16`; those of [`attention::record_any`] for options and workspace.
///
/// ```no_run
/// use wgmarlin::attention::{self, Options};
/// use wgmarlin::attention_diff::{self, AttentionDiff, Difference, Lambda, Scratch, SubNorm};
/// use wgmarlin::{DType, Gpu};
/// let gpu = Gpu::new()?;
/// let (hq, hkv, d, d_v) = (4, 2, 32, 64);
/// let q = gpu.tensor(&[1, 1, hq, 2, d], &vec![0.5f32; hq * 2 * d])?;
/// let k = gpu.tensor(&[1, 8, hkv, 2, d], &vec![0.25f32; 8 * hkv * 2 * d])?;
/// let v = gpu.tensor(&[1, 8, hkv, d_v], &vec![1.0f32; 8 * hkv * d_v])?;
/// let out = gpu.alloc(DType::F32, &[1, 1, hq, d_v])?;
/// let vector = gpu.tensor(&[d], &vec![0.1f32; d])?;
/// let init = 0.2; // of the first layer
/// let queries = gpu.alloc(DType::F32, &[hq * 4 * d])?;
/// let parts = gpu.alloc(DType::F32, &[hq * 2 * d_v])?;
/// let workspace = gpu.alloc(DType::F32, &[attention::workspace_len(&gpu, 1, 1, 2 * hq, hkv, d_v, 8)])?;
/// gpu.run(|r| {
///     let lambda = Lambda::Learned { q: [&vector; 2], k: [&vector; 2], init };
///     let norm = Some(SubNorm { weight: None, eps: 1e-5 });
///     let difference = Difference { lambda, norm, factor: 1.0 - init };
///     let scratch = Scratch { queries: &queries, parts: &parts, workspace: &workspace };
///     let options = Options::causal(1.0 / (d as f32).sqrt());
///     let (q, k, v, out) = (&q, &k, &v, &out);
///     attention_diff::record(r, &AttentionDiff { q, k, v, out, kv_len: 8, options, difference, scratch })
/// })?;
/// println!("{:?}", gpu.read::<f32>(&out)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &AttentionDiff<'_>) -> Result<()> {
    let AttentionDiff { q, k, v, out, kv_len, options, difference, scratch } = *request;
    let [b, sq, hq, d] = check_q(q)?;
    let &[_, capacity, hkv, _, _] = k.shape() else {
        return Err(Error::shape(OP, "k", k.shape(), "[B, C, Hkv, 2, D]"));
    };
    k.expect(OP, "k", &[q.dtype()], &[b, capacity, hkv, 2, d])?;
    v.expect(OP, "v", &[q.dtype()], &[b, capacity, hkv, v.cols()])?;
    check_heads(hq, hkv)?;
    let k = &k.reshape(&[b, capacity, hkv, 2 * d])?;
    let call = Call { q, sizes: [b, sq, hq, d], d_v: v.cols(), out, difference, scratch };
    call.record(recorder, |recorder, q, out| {
        let workspace = scratch.workspace;
        attention::record_any(recorder, &AttentionDecode { q, k, v, out, kv_len, options, workspace })
    })
}

/// Records differential attention over a cache in blocks, likewise.
///
/// # Errors
/// As [`record`], and those of [`attention::record_paged`] for cache and context.
///
/// ```no_run
/// # use wgmarlin::attention_diff::{self, AttentionDiffPaged};
/// # fn example(r: &mut wgmarlin::Recorder, layer: &AttentionDiffPaged) -> wgmarlin::Result<()> {
/// // `layer.cache` has keys of width 2·D, as `kv::record` or a `KvCache` wrote them.
/// attention_diff::record_paged(r, layer)
/// # }
/// ```
pub fn record_paged(recorder: &mut Recorder<'_, '_>, request: &AttentionDiffPaged<'_>) -> Result<()> {
    let AttentionDiffPaged { q, cache, context, out, options, difference, scratch } = *request;
    let sizes = check_q(q)?;
    if cache.shape.d != 2 * sizes[3] {
        let want = format!("{}, twice that of the queries", 2 * sizes[3]);
        return Err(Error::shape(OP, "cache's width of keys", cache.shape.d, want));
    }
    check_heads(sizes[2], cache.shape.kv_heads)?;
    let call = Call { q, sizes, d_v: cache.shape.d_v, out, difference, scratch };
    call.record(recorder, |recorder, q, out| {
        let workspace = scratch.workspace;
        let request = AttentionPaged { q, cache, context, out, options, workspace };
        attention::record_paged(recorder, &request)
    })
}

/// Attention sees twice as many query heads, of which both of a pair must have the same head of K and V.
fn check_heads(hq: usize, hkv: usize) -> Result<()> {
    if hkv == 0 || !hq.is_multiple_of(hkv) {
        return Err(Error::shape(OP, "q's heads", hq, format!("a multiple of the {hkv} of k and v")));
    }
    Ok(())
}

/// Checks the queries; B, Sq, Hq and D.
fn check_q(q: &Tensor) -> Result<[usize; 4]> {
    q.expect(OP, "q", &[DType::F32, DType::F16], q.shape())?;
    let &[b, sq, hq, 2, d] = q.shape() else {
        return Err(Error::shape(OP, "q", q.shape(), "[B, Sq, Hq, 2, D]"));
    };
    if d == 0 || d % 4 != 0 || d > 128 {
        return Err(Error::shape(OP, "q's head size D", d, "a multiple of 4 from 4 to 128"));
    }
    Ok([b, sq, hq, d])
}

/// What both kinds of keys have in common.
struct Call<'a> {
    q: &'a Tensor,
    sizes: [usize; 4],
    d_v: usize,
    out: &'a Tensor,
    difference: Difference<'a>,
    scratch: Scratch<'a>,
}

impl Call<'_> {
    /// Pads the queries, has `attend` record the attention of these \[B, Sq, 2·Hq, 2·D\] to \[B, Sq, 2·Hq, Dv\], and combines.
    fn record(
        &self,
        recorder: &mut Recorder<'_, '_>,
        attend: impl Fn(&mut Recorder<'_, '_>, &Tensor, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let Call { q, sizes: [b, sq, hq, d], d_v, out, difference, scratch } = *self;
        out.expect(OP, "out", &[q.dtype()], &[b, sq, hq, d_v])?;
        let front = |what: &str, tensor: &Tensor, cols: usize| -> Result<Tensor> {
            let need = [b, sq, 2 * hq, cols].into_iter().fold(1usize, usize::saturating_mul);
            tensor.expect(OP, what, &[q.dtype()], tensor.shape())?;
            if tensor.len() < need {
                let want = format!("at least {need} elements");
                return Err(Error::shape(OP, format!("{what}'s length"), tensor.len(), want));
            }
            let flat = tensor.reshape(&[tensor.len()])?.rows_view(recorder.gpu(), 0, need)?;
            flat.reshape(&[b, sq, 2 * hq, cols])
        };
        let queries = &front("scratch.queries", scratch.queries, 2 * d)?;
        let parts = &front("scratch.parts", scratch.parts, d_v)?;
        recorder.all_or_nothing(|recorder| {
            pad_queries(recorder, q, queries)?;
            attend(recorder, queries, parts)?;
            record_combine(recorder, parts, out, &difference, Some(d))
        })
    }
}

/// Queries [.., 2, D] to [.., 2, 2·D] (`queries` under any shape).
fn pad_queries(recorder: &mut Recorder<'_, '_>, q: &Tensor, queries: &Tensor) -> Result<()> {
    let count = index32(OP, "elements of padded queries", queries.len())? / 4;
    let (defines, needs) = spec::variant(Tier::Base, q.dtype()).into();
    recorder.launch(Launch {
        spec: &DIFF_QUERIES,
        tier: Tier::Base,
        defines,
        needs,
        binds: &[q, queries],
        params: spec::QueriesParams { count, d4: q.cols() as u32 / 4 },
        groups: u64::from(count).div_ceil(u64::from(spec::THREADS)),
    })
}

/// Parts [.., 2·Hq, Dv], checked against `out` [.., Hq, Dv], to `out`. `d`: the length of λ's vectors, if it is known.
fn record_combine(
    recorder: &mut Recorder<'_, '_>,
    parts: &Tensor,
    out: &Tensor,
    difference: &Difference<'_>,
    d: Option<usize>,
) -> Result<()> {
    let Difference { lambda, norm, factor } = *difference;
    let (dtype, heads) = (out.dtype(), out.shape().iter().rev().nth(1).copied().unwrap_or(1));
    let finite = |what: &'static str, value: f32| match value.is_finite() {
        true => Ok(value),
        false => Err(Error::value(OP, what, value, "finite")),
    };
    let factor = finite("factor", factor)?;
    let (vectors, d, step, init) = match lambda {
        Lambda::Given(lambda) => {
            lambda.expect(OP, "lambda", &[DType::F32], lambda.shape())?;
            let one = lambda.shape() == [1];
            if !one && lambda.shape() != [heads] {
                return Err(Error::shape(OP, "lambda", lambda.shape(), format!("[{heads}] or [1]")));
            }
            ([lambda; 4], 0, usize::from(!one), 0.0)
        }
        Lambda::Learned { q, k, init } => {
            let d = d.unwrap_or(q[0].cols());
            let one = q[0].shape() == [d];
            let vectors = [q[0], k[0], q[1], k[1]];
            for (what, vector) in
                ["lambda.q[0]", "lambda.k[0]", "lambda.q[1]", "lambda.k[1]"].iter().zip(vectors)
            {
                let want: &[usize] = if one { &[d] } else { &[heads, d] };
                vector.expect(OP, what, &[DType::F32], want)?;
            }
            (vectors, d, if one { 0 } else { d }, finite("lambda.init", init)?)
        }
    };
    let (kind, eps, weight) = match norm {
        None => (0, 0.0, None),
        Some(SubNorm { weight, eps }) => {
            (if weight.is_some() { 2 } else { 1 }, finite("norm.eps", eps)?, weight)
        }
    };
    if eps < 0.0 {
        return Err(Error::value(OP, "norm.eps", eps, "at least 0"));
    }
    if let Some(weight) = weight {
        weight.expect(OP, "norm.weight", &[dtype], &[out.cols()])?;
    }
    let rows = index32(OP, "rows of out", out.rows())?;
    index32(OP, "elements of parts", parts.len())?;
    let (tier, defines, needs) =
        recorder.choose(&DIFF_COMBINE, |tier| Ok(spec::variant(tier, dtype).into()))?;
    let [q1, k1, q2, k2] = vectors;
    recorder.launch(Launch {
        spec: &DIFF_COMBINE,
        tier,
        defines,
        needs,
        // Without a weight its binding is never read.
        binds: &[parts, q1, k1, q2, k2, weight.unwrap_or(parts), out],
        params: spec::CombineParams {
            rows,
            heads: heads as u32,
            e4: out.cols() as u32 / 4,
            d: d as u32,
            step: step as u32,
            norm: kind,
            init,
            eps,
            factor,
        },
        groups: if out.is_empty() { 0 } else { u64::from(rows) },
    })
}

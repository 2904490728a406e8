//! Scaled dot-product attention, out = softmax(scale·Q·Kᵀ + mask)·V, over KV caches of any format, contiguous or paged,
//! with any ratio of query to KV heads and the masks of [`Options`].
//!
//! * [`record`]: many queries (prefill), online softmax in tiles (Dao et al., "FlashAttention", 2022);
//! * [`record_varlen`]: the same for sequences of different lengths, packed one behind the other;
//! * [`record_decode`]: 1 to 8 queries; the keys are split over workgroups and the parts merged ("Flash-Decoding",
//!   Dao et al., 2023);
//! * [`record_any`]: one of the two, by the number of queries;
//! * [`record_probs`]: the probabilities themselves, for analysis;
//! * [`record_merge`]: results over parts of the keys, merged into those over all;
//! * [`record_paged`]: as `record_any`, over the blocks of a [`KvBlocks`] ("PagedAttention", Kwon et al., 2023).
//!
//! All scores, sums and maxima are f32, whatever the storage. A query that sees no key gives 0. What lies behind
//! the last key of a sequence in its cache is never used. The nodes of a tree of drafts are one more mask of all of
//! them ([`Options::tree`]).

mod blocks;
mod cases;
mod coop;
mod cpu;
mod decode;
mod extra;
mod fragments;
mod merge;
mod merge_spec;
mod msl;
mod options;
mod paged_cases;
mod plan;
mod probs;
mod probs_spec;
mod spec;
#[cfg(test)]
mod tests;
mod varlen;
mod varlen_cases;

pub use blocks::record_paged;
pub use cpu::{Problem, attention, lse, merge_lse, probabilities};
pub use decode::record_decode;
pub use merge::{MergeLse, record_merge};
pub use merge_spec::{ATTENTION_MERGE, MERGE_LSE};
pub use options::Options;
pub use plan::{merged_workspace_len, workspace_len};
pub use probs::{AttentionProbs, record_probs};
pub use probs_spec::ATTENTION_PROBS;
pub use spec::{ATTENTION, ATTENTION_DECODE, ATTENTION_PAGED, ATTENTION_VARLEN};
pub use varlen::{AttentionVarlen, Sequences, record_varlen};

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder};
use crate::kv::{Context, KvBlocks};
use crate::tensor::{DType, Tensor};
use options::BiasSteps;

/// The largest number of queries that [`record_decode`] takes.
pub const MAX_DECODE: usize = 8;

/// Attention of many queries.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// \[B, Sq, Hq, D\], f32, f16 or bf16; D a multiple of 8 up to 256.
    pub q: &'a Tensor,
    /// \[B, C, Hkv, D\], like `q`; Hq a multiple of Hkv: query head h reads KV head h / (Hq / Hkv).
    pub k: &'a Tensor,
    /// \[B, C, Hkv, Dv\], like `k`; Dv a multiple of 8 up to 256.
    pub v: &'a Tensor,
    /// \[B, Sq, Hq, Dv\], like `q`.
    pub out: &'a Tensor,
    /// The first `kv_len` of the C rows are valid.
    pub kv_len: usize,
    pub options: Options<'a>,
}

/// Attention of few queries over many keys.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDecode<'a> {
    /// \[B, Sq, Hq, D\], f32, f16 or bf16; Sq at most 8 ([`MAX_DECODE`]) for [`record_decode`]; D a multiple of 8 up to 256.
    pub q: &'a Tensor,
    /// \[B, C, Hkv, D\], like `q`; Hq a multiple of Hkv.
    pub k: &'a Tensor,
    /// \[B, C, Hkv, Dv\], like `k`; Dv a multiple of 8 up to 256.
    pub v: &'a Tensor,
    /// \[B, Sq, Hq, Dv\], like `q`.
    pub out: &'a Tensor,
    /// The first `kv_len` of the C rows are valid.
    pub kv_len: usize,
    pub options: Options<'a>,
    /// f32, any shape with at least [`workspace_len`] elements ([`merged_workspace_len`] with sinks or an LSE output).
    /// Its contents need not be kept between calls; one workspace serves all layers of a pass.
    pub workspace: &'a Tensor,
}

/// Attention over a cache in blocks, of any format.
#[derive(Clone, Copy, Debug)]
pub struct AttentionPaged<'a> {
    /// \[B, Sq, Hq, D\], f32, f16 or bf16. Any Sq, so that prompts can be read in pieces.
    pub q: &'a Tensor,
    /// Keys of width D, values of width Dv; Hq a multiple of its heads.
    pub cache: &'a KvBlocks,
    /// Which of its rows belong to which of the B sequences.
    pub context: Context<'a>,
    /// \[B, Sq, Hq, Dv\], like `q`.
    pub out: &'a Tensor,
    pub options: Options<'a>,
    /// As [`AttentionDecode::workspace`], for the longest sequence. Used for up to 8 queries, or with a bias, or with both a
    /// tree and sinks.
    pub workspace: &'a Tensor,
}

impl<'a> AttentionDecode<'a> {
    fn request(&self) -> Attention<'a> {
        let AttentionDecode { q, k, v, out, kv_len, options, .. } = *self;
        Attention { q, k, v, out, kv_len, options }
    }
}

/// The sizes of a checked request, all of which fit 32 bits.
#[derive(Clone, Copy)]
struct Sizes {
    dtype: DType,
    b: u32,
    sq: u32,
    hq: u32,
    hkv: u32,
    d: u32,
    d_v: u32,
    capacity: u32,
    /// Keys of the longest sequence.
    kv_len: u32,
}

impl Sizes {
    /// Queries of all heads that share a KV head.
    fn rows(&self) -> u32 {
        self.sq * (self.hq / self.hkv)
    }

    /// Workgroups of so many of them.
    fn tiles(&self, tile_rows: u32) -> u32 {
        self.rows().div_ceil(tile_rows)
    }
}

/// Checks the queries; their shape.
fn check_q(kernel: &'static str, q: &Tensor) -> Result<[usize; 4]> {
    q.expect(kernel, "q", &spec::DTYPES, q.shape())?;
    let &[b, sq, hq, d] = q.shape() else {
        return Err(Error::shape(kernel, "q", q.shape(), "[B, Sq, Hq, D]"));
    };
    check_width(kernel, "q's head size D", d)?;
    within_u32(&format!("{kernel}: q"), q.len() as u64)?;
    Ok([b, sq, hq, d])
}

fn check_width(kernel: &'static str, what: &str, d: usize) -> Result<()> {
    if d == 0 || !d.is_multiple_of(8) || d > 256 {
        return Err(Error::shape(kernel, what, d, "a multiple of 8 from 8 to 256"));
    }
    Ok(())
}

fn check_heads(kernel: &'static str, hq: usize, hkv: usize) -> Result<()> {
    if hkv == 0 || !hq.is_multiple_of(hkv) {
        let what = "k's number of heads Hkv";
        return Err(Error::shape(kernel, what, hkv, format!("a divisor of q's {hq} heads")));
    }
    Ok(())
}

/// Checks a request; `None` if there is nothing to compute.
fn check(kernel: &'static str, request: &Attention<'_>) -> Result<Option<(Sizes, BiasSteps)>> {
    let Attention { q, k, v, out, kv_len, options } = *request;
    let (s, bias) = check_qk(kernel, q, k, kv_len, &options)?;
    let (d_v, &[b, capacity, hkv, _]) = (v.cols(), k.shape()) else { return Ok(None) };
    v.expect(kernel, "v", &[s.dtype], &[b, capacity, hkv, d_v])?;
    check_width(kernel, "v's head size Dv", d_v)?;
    out.expect(kernel, "out", &[s.dtype], &[b, q.shape()[1], q.shape()[2], d_v])?;
    for (what, tensor) in [("v", v), ("out", out)] {
        within_u32(&format!("{kernel}: {what}"), tensor.len() as u64)?;
    }
    Ok((!q.is_empty()).then_some((Sizes { d_v: d_v as u32, ..s }, bias)))
}

/// Checks queries, keys and options: their sizes, with values as wide as keys.
fn check_qk(
    kernel: &'static str,
    q: &Tensor,
    k: &Tensor,
    kv_len: usize,
    options: &Options<'_>,
) -> Result<(Sizes, BiasSteps)> {
    let dtype = q.dtype();
    let [b, sq, hq, d] = check_q(kernel, q)?;
    let &[_, capacity, hkv, _] = k.shape() else {
        return Err(Error::shape(kernel, "k", k.shape(), "[B, C, Hkv, D]"));
    };
    check_heads(kernel, hq, hkv)?;
    k.expect(kernel, "k", &[dtype], &[b, capacity, hkv, d])?;
    if kv_len > capacity {
        return Err(Error::value(kernel, "kv_len", kv_len, format!("at most the capacity {capacity}")));
    }
    let bias = options.check(kernel, [b, sq, hq], kv_len)?;
    within_u32(&format!("{kernel}: k"), k.len() as u64)?;
    // No dimension exceeds its tensor's length, which fits (an empty k still has Hkv ≤ Hq, and kv_len = 0), or there
    // are no queries.
    let [b, sq, hq, hkv, d, kv_len] = [b, sq, hq, hkv, d, kv_len].map(|n| n as u32);
    let capacity = if k.is_empty() { 0 } else { capacity as u32 };
    Ok((Sizes { dtype, b, sq, hq, hkv, d, d_v: d, capacity, kv_len }, bias))
}

/// Shaders index elements with 32 bits.
fn within_u32(what: &str, elements: u64) -> Result<()> {
    let max = u64::from(u32::MAX);
    if elements <= max {
        return Ok(());
    }
    Err(Error::Limit { what: what.to_string(), name: "elements of a 32-bit index", need: elements, max })
}

/// Records attention of many queries: a workgroup takes 64 rows (queries × query heads of one KV head), or 128 on cooperative
/// matrices of side 16 where heads are no wider than 128 and each compute unit still has a workgroup.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Limit`] from 2³² elements of q or k,
/// [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, attention};
/// let gpu = Gpu::new()?;
/// let q = gpu.tensor(&[1, 2, 2, 8], &[0.5f32; 32])?;
/// let k = gpu.tensor(&[1, 4, 1, 8], &[0.25f32; 32])?;
/// let v = gpu.tensor(&[1, 4, 1, 8], &[1.0f32; 32])?;
/// let out = gpu.alloc(DType::F32, &[1, 2, 2, 8])?;
/// gpu.run(|r| {
///     let scale = 1.0 / 8f32.sqrt();
///     let (q, k, v, out) = (&q, &k, &v, &out);
///     let options = attention::Options::causal(scale);
///     attention::record(r, &attention::Attention { q, k, v, out, kv_len: 3, options })
/// })?;
/// println!("{:?}", gpu.read::<f32>(&out)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Attention<'_>) -> Result<()> {
    let Some((s, bias)) = check(ATTENTION.name, request)? else { return Ok(()) };
    let Attention { q, k, v, out, options, .. } = *request;
    let extras = if options.extras() || s.d_v != s.d { spec::Extras::Tensors } else { spec::Extras::None };
    let spec::Prefill { tier, defines, needs, rows } = spec::prefill_plan(recorder, &ATTENTION, &s, extras)?;
    let params = spec::AttentionParams {
        bias: bias.some,
        bias_b: bias.b,
        bias_h: bias.h,
        bias_q: bias.q,
        ..prefill_params(&s, &options, rows)
    };
    recorder.launch(Launch {
        spec: &ATTENTION,
        tier,
        defines,
        needs,
        // What is absent is bound to what is bound in the same way.
        binds: &[
            q,
            k,
            v,
            options.mask().unwrap_or(q),
            options.sinks.unwrap_or(q),
            out,
            options.lse.unwrap_or(out),
        ],
        params,
        groups: u64::from(params.groups),
    })
}

/// Parameters of many queries over tensors, without a bias, for workgroups of so many rows.
fn prefill_params(s: &Sizes, options: &Options<'_>, rows: u32) -> spec::AttentionParams {
    spec::AttentionParams {
        sq: s.sq,
        kv_len: s.kv_len,
        capacity: s.capacity,
        heads: s.hq,
        kv_heads: s.hkv,
        d4: s.d / 4,
        tiles: s.tiles(rows),
        groups: s.b * s.hkv * s.tiles(rows),
        causal: u32::from(options.causal),
        scale: options.scale,
        e4: s.d_v / 4,
        window: options.window_word(s.sq, s.kv_len),
        soft_cap: options.soft_cap.unwrap_or(0.0),
        sinks: u32::from(options.sinks.is_some()),
        lse: u32::from(options.lse.is_some()),
        bias: 0,
        bias_b: 0,
        bias_h: 0,
        bias_q: 0,
        block: 0,
        blocks: 0,
        table: 0,
    }
}

/// [`record_decode`] for up to 8 queries, [`record`] (which leaves the workspace alone) for more: one call for a model.
///
/// # Errors
/// As the one that is called.
///
/// ```no_run
/// # fn example(r: &mut wgmarlin::Recorder, request: &wgmarlin::attention::AttentionDecode) -> wgmarlin::Result<()> {
/// wgmarlin::attention::record_any(r, request)
/// # }
/// ```
pub fn record_any(recorder: &mut Recorder<'_, '_>, request: &AttentionDecode<'_>) -> Result<()> {
    if request.q.shape().get(1).is_some_and(|&sq| sq > MAX_DECODE) {
        return record(recorder, &request.request());
    }
    record_decode(recorder, request)
}

//! Scaled dot-product attention, out = softmax(scale·Q·Kᵀ + mask)·V, over a contiguous KV cache, with any ratio of
//! query to KV heads.
//!
//! * [`record`]: many queries (prefill), online softmax in tiles (Dao et al., "FlashAttention", 2022);
//! * [`record_decode`]: 1 to 8 queries; the keys are split over workgroups and the parts merged ("Flash-Decoding",
//!   Dao et al., 2023);
//! * [`record_any`]: one of the two, by the number of queries.
//!
//! All scores, sums and maxima are f32, whatever the storage. A query that sees no key gives 0. What lies behind
//! `kv_len` in the cache is never used.

mod cpu;
mod plan;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::{Problem, attention};
pub use plan::workspace_len;
pub use spec::{ATTENTION, ATTENTION_DECODE, ATTENTION_MERGE};

use crate::device::Caps;
use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, Tier};
use crate::tensor::{DType, Tensor};
use plan::Splits;

/// The largest number of queries that [`record_decode`] takes.
pub const MAX_DECODE: usize = 8;

/// Attention of many queries.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// \[B, Sq, Hq, D\], f32 or f16; D a multiple of 8 up to 256.
    pub q: &'a Tensor,
    /// \[B, C, Hkv, D\], like `q`; Hq a multiple of Hkv: query head h reads KV head h / (Hq / Hkv).
    pub k: &'a Tensor,
    /// Like `k`.
    pub v: &'a Tensor,
    /// Like `q`.
    pub out: &'a Tensor,
    /// The first `kv_len` of the C rows are valid.
    pub kv_len: usize,
    /// Query i sees keys 0..=i + kv_len − Sq: the last query meets the last key. Without, every query sees all.
    pub causal: bool,
    /// Factor of the scores, usually 1/√D; finite.
    pub scale: f32,
}

/// Attention of few queries over many keys.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDecode<'a> {
    /// \[B, Sq, Hq, D\], f32 or f16; Sq at most 8 ([`MAX_DECODE`]) for [`record_decode`]; D a multiple of 8 up to 256.
    pub q: &'a Tensor,
    /// \[B, C, Hkv, D\], like `q`; Hq a multiple of Hkv.
    pub k: &'a Tensor,
    /// Like `k`.
    pub v: &'a Tensor,
    /// Like `q`.
    pub out: &'a Tensor,
    /// The first `kv_len` of the C rows are valid.
    pub kv_len: usize,
    /// As [`Attention::causal`].
    pub causal: bool,
    /// Factor of the scores, usually 1/√D; finite.
    pub scale: f32,
    /// f32, any shape with at least [`workspace_len`] elements. Its contents need not be kept between calls; one
    /// workspace serves all layers of a pass.
    pub workspace: &'a Tensor,
}

impl<'a> AttentionDecode<'a> {
    fn request(&self) -> Attention<'a> {
        let AttentionDecode { q, k, v, out, kv_len, causal, scale, .. } = *self;
        Attention { q, k, v, out, kv_len, causal, scale }
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
    capacity: u32,
    kv_len: u32,
}

impl Sizes {
    /// Queries of all heads that share a KV head.
    fn rows(&self) -> u32 {
        self.sq * (self.hq / self.hkv)
    }
}

/// Checks a request; `None` if there is nothing to compute.
fn check(kernel: &'static str, request: &Attention<'_>) -> Result<Option<Sizes>> {
    let Attention { q, k, v, out, kv_len, scale, .. } = *request;
    let dtype = q.dtype();
    q.expect(kernel, "q", &[DType::F32, DType::F16], q.shape())?;
    let &[b, sq, hq, d] = q.shape() else {
        return Err(Error::shape(kernel, "q", q.shape(), "[B, Sq, Hq, D]"));
    };
    let &[_, capacity, hkv, _] = k.shape() else {
        return Err(Error::shape(kernel, "k", k.shape(), "[B, C, Hkv, D]"));
    };
    if d == 0 || d % 8 != 0 || d > 256 {
        return Err(Error::shape(kernel, "q's head size D", d, "a multiple of 8 from 8 to 256"));
    }
    if hkv == 0 || hq % hkv != 0 {
        let what = "k's number of heads Hkv";
        return Err(Error::shape(kernel, what, hkv, format!("a divisor of q's {hq} heads")));
    }
    k.expect(kernel, "k", &[dtype], &[b, capacity, hkv, d])?;
    v.expect(kernel, "v", &[dtype], k.shape())?;
    out.expect(kernel, "out", &[dtype], q.shape())?;
    if kv_len > capacity {
        return Err(Error::value(kernel, "kv_len", kv_len, format!("at most the capacity {capacity}")));
    }
    if !scale.is_finite() {
        return Err(Error::value(kernel, "scale", scale, "finite"));
    }
    for (what, tensor) in [("q", q), ("k", k)] {
        within_u32(&format!("{kernel}: {what}"), tensor.len() as u64)?;
    }
    if q.is_empty() {
        return Ok(None);
    }
    // No dimension exceeds its tensor's length, which fits (an empty k still has Hkv ≤ Hq, and kv_len = 0).
    let [b, sq, hq, hkv, d, kv_len] = [b, sq, hq, hkv, d, kv_len].map(|n| n as u32);
    let capacity = if k.is_empty() { 0 } else { capacity as u32 };
    Ok(Some(Sizes { dtype, b, sq, hq, hkv, d, capacity, kv_len }))
}

/// Shaders index elements with 32 bits.
fn within_u32(what: &str, elements: u64) -> Result<()> {
    let max = u64::from(u32::MAX);
    if elements <= max {
        return Ok(());
    }
    Err(Error::Limit { what: what.to_string(), name: "elements of a 32-bit index", need: elements, max })
}

/// Lanes that every subgroup has at least: Intel's compiler chooses 8, 16 or 32 for each shader anew.
fn narrowest_subgroup(caps: &Caps) -> u32 {
    const INTEL: u32 = 0x8086;
    caps.subgroup_size.min(if caps.vendor == INTEL { 8 } else { 16 })
}

/// Records attention of many queries: a workgroup takes 64 rows (queries × query heads of one KV head).
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
///     attention::record(r, &attention::Attention { q, k, v, out, kv_len: 3, causal: true, scale })
/// })?;
/// println!("{:?}", gpu.read::<f32>(&out)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Attention<'_>) -> Result<()> {
    let Some(s) = check(ATTENTION.name, request)? else { return Ok(()) };
    let (tier, defines, needs) =
        recorder.choose(&ATTENTION, |tier| Ok(spec::prefill_variant(tier, s.dtype, s.d).into()))?;
    let tiles = s.rows().div_ceil(spec::TILE_ROWS);
    let groups = s.b * s.hkv * tiles;
    recorder.launch(Launch {
        spec: &ATTENTION,
        tier,
        defines,
        needs,
        binds: &[request.q, request.k, request.v, request.out],
        params: spec::AttentionParams {
            sq: s.sq,
            kv_len: s.kv_len,
            capacity: s.capacity,
            heads: s.hq,
            kv_heads: s.hkv,
            d4: s.d / 4,
            tiles,
            groups,
            causal: u32::from(request.causal),
            scale: request.scale,
        },
        groups: u64::from(groups),
    })
}

/// Records attention of 1 to 8 queries: one launch, or two when the keys are split. The order of summation is fixed
/// by the shapes and the adapter, so results repeat bit for bit.
///
/// # Errors
/// As [`record`]; also [`Error::Shape`] for more than 8 queries or a short workspace, and [`Error::Limit`] for a
/// workspace of 2³² elements.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, attention};
/// let gpu = Gpu::new()?;
/// let q = gpu.tensor(&[1, 1, 2, 8], &[0.5f32; 16])?;
/// let k = gpu.tensor(&[1, 4, 1, 8], &[0.25f32; 32])?;
/// let v = gpu.tensor(&[1, 4, 1, 8], &[1.0f32; 32])?;
/// let out = gpu.alloc(DType::F32, &[1, 1, 2, 8])?;
/// // Sized once, for the capacity of the cache and the largest batch.
/// let workspace = gpu.alloc(DType::F32, &[attention::workspace_len(&gpu, 1, 1, 2, 1, 8, 4)])?;
/// gpu.run(|r| {
///     let (q, k, v, out, workspace, scale) = (&q, &k, &v, &out, &workspace, 1.0 / 8f32.sqrt());
///     let request = attention::AttentionDecode { q, k, v, out, kv_len: 3, causal: true, scale, workspace };
///     attention::record_decode(r, &request)
/// })?;
/// println!("{:?}", gpu.read::<f32>(&out)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_decode(recorder: &mut Recorder<'_, '_>, request: &AttentionDecode<'_>) -> Result<()> {
    record_split(recorder, request, None)
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

/// As [`record_decode`], with the splits given or planned.
fn record_split(
    recorder: &mut Recorder<'_, '_>,
    request: &AttentionDecode<'_>,
    splits: Option<Splits>,
) -> Result<()> {
    let kernel = ATTENTION_DECODE.name;
    let AttentionDecode { q, k, v, out, workspace, .. } = *request;
    let checked = check(kernel, &request.request())?;
    if q.shape()[1] > MAX_DECODE {
        return Err(Error::shape(kernel, "q's number of queries Sq", q.shape()[1], "at most 8"));
    }
    workspace.expect(kernel, "workspace", &[DType::F32], workspace.shape())?;
    let Some(s) = checked else { return Ok(()) };
    let splits = splits.unwrap_or_else(|| Splits::plan(recorder.gpu().caps(), &s));
    let all_rows = s.b * s.sq * s.hq;
    let need = splits.workspace(u64::from(all_rows), u64::from(s.d));
    within_u32("attention_decode: workspace", need)?;
    if (workspace.len() as u64) < need {
        let want = format!("at least {need} elements (workspace_len)");
        return Err(Error::shape(kernel, "workspace's length", workspace.len(), want));
    }
    if workspace.overlaps(out) {
        return Err(Error::shape(kernel, "workspace", "overlapping out", "memory of its own"));
    }
    let subgroup = narrowest_subgroup(recorder.gpu().caps());
    let plan = |tier| spec::decode_variant(tier, s.dtype, s.rows(), s.d, subgroup);
    let (tier, defines, needs) =
        recorder.choose(&ATTENTION_DECODE, |tier| plan(tier).map(|(v, _)| v.into()))?;
    let served = plan(tier).map_or(1, |(_, rows)| rows);
    let tiles = s.rows().div_ceil(served);
    let groups = s.b * s.hkv * tiles * splits.count;
    recorder.launch(Launch {
        spec: &ATTENTION_DECODE,
        tier,
        defines,
        needs,
        // There are neither scales nor a table.
        binds: &[q, k, v, q, q, out, workspace],
        params: spec::DecodeParams {
            sq: s.sq,
            kv_len: s.kv_len,
            heads: s.hq,
            kv_heads: s.hkv,
            d8: s.d / 8,
            e8: s.d / 8,
            block_rows: s.capacity * s.hkv,
            head_rows: 1,
            key_rows: s.hkv,
            block: 0,
            table: 0,
            tiles,
            splits: splits.count,
            groups,
            // Fits: within_u32 has looked at the whole workspace; unused with one split.
            stats: if splits.count > 1 { all_rows * splits.count * s.d } else { 0 },
            causal: u32::from(request.causal),
            window: 0,
            half: u32::from(s.dtype == DType::F16),
            // The softmax is taken to base 2.
            scale: request.scale * std::f32::consts::LOG2_E,
            soft_cap: 0.0,
        },
        groups: u64::from(groups),
    })?;
    if splits.count > 1 {
        merge(recorder, workspace, out, all_rows, splits.count, s.d)?;
    }
    Ok(())
}

fn merge(
    recorder: &mut Recorder<'_, '_>,
    workspace: &Tensor,
    out: &Tensor,
    rows: u32,
    splits: u32,
    d: u32,
) -> Result<()> {
    let (defines, needs) = spec::merge_variant(out.dtype()).into();
    recorder.launch(Launch {
        spec: &ATTENTION_MERGE,
        tier: Tier::Base,
        defines,
        needs,
        binds: &[workspace, out],
        params: spec::MergeParams { rows, splits, d4: d / 4 },
        groups: u64::from(rows),
    })
}

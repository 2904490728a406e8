//! Attention of few queries: `attention_decode` over tensors or blocks, and the merge of its parts.

use super::merge::{Parts, merge};
use super::options::BiasSteps;
use super::plan::Splits;
use super::{
    ATTENTION_DECODE, AttentionDecode, AttentionPaged, MAX_DECODE, Options, Sizes, blocks, check, fragments,
    spec, within_u32,
};
use crate::device::Caps;
use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, Tier};
use crate::kv::KvFormat;
use crate::tensor::{DType, Tensor};

/// Records attention of 1 to 8 queries: one launch, or two when the keys are split (the `Spirv` tier merges splits in the first, in
/// memory of the [`Gpu`](crate::Gpu)'s own). The order of summation is fixed by the shapes and the adapter, so results repeat bit for bit.
///
/// # Errors
/// As [`record`](super::record); also [`Error::Shape`] for more than 8 queries or a short workspace, and
/// [`Error::Limit`] for a workspace of 2³² elements.
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
///     let options = attention::Options::causal(scale);
///     let request = attention::AttentionDecode { q, k, v, out, kv_len: 3, options, workspace };
///     attention::record_decode(r, &request)
/// })?;
/// println!("{:?}", gpu.read::<f32>(&out)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_decode(recorder: &mut Recorder<'_, '_>, request: &AttentionDecode<'_>) -> Result<()> {
    record_split(recorder, request, None)
}

/// As [`record_decode`], with at most `splits` splits, or as many as planned.
pub(super) fn record_split(
    recorder: &mut Recorder<'_, '_>,
    request: &AttentionDecode<'_>,
    splits: Option<u32>,
) -> Result<()> {
    let kernel = ATTENTION_DECODE.name;
    let AttentionDecode { q, k, v, out, options, workspace, .. } = *request;
    let checked = check(kernel, &request.request())?;
    if q.shape()[1] > MAX_DECODE {
        return Err(Error::shape(kernel, "q's number of queries Sq", q.shape()[1], "at most 8"));
    }
    workspace.expect(kernel, "workspace", &[DType::F32], workspace.shape())?;
    let Some((s, bias)) = checked else { return Ok(()) };
    let cache = Cache {
        format: spec::format_of(s.dtype),
        k,
        v,
        scales: None,
        table: None,
        block_rows: s.capacity * s.hkv,
        head_rows: 1,
        key_rows: s.hkv,
        block: s.capacity.max(1),
        blocks: 0,
        paged: options.mask().is_some() || options.soft_cap.is_some(),
    };
    launch(recorder, &s, &Operands { q, cache, out, workspace, options, bias }, splits)
}

/// As [`super::record_paged`] of few queries, likewise. For many, every 4 or 8 rows read the keys anew.
pub(super) fn record_paged_split(
    recorder: &mut Recorder<'_, '_>,
    request: &AttentionPaged<'_>,
    splits: Option<u32>,
) -> Result<()> {
    let kernel = ATTENTION_DECODE.name;
    let AttentionPaged { q, cache, context, out, options, workspace } = *request;
    let checked = blocks::check(kernel, request)?;
    workspace.expect(kernel, "workspace", &[DType::F32], workspace.shape())?;
    let Some((s, bias, blocks)) = checked else { return Ok(()) };
    let cache = Cache {
        format: cache.format,
        k: &cache.k,
        v: &cache.v,
        scales: cache.format.quantised().then_some(&cache.scales),
        table: context.table(),
        block_rows: s.hkv * s.capacity,
        head_rows: s.capacity,
        key_rows: 1,
        block: s.capacity.max(1),
        blocks,
        paged: true,
    };
    launch(recorder, &s, &Operands { q, cache, out, workspace, options, bias }, splits)
}

/// Keys and values as the shader sees them: rows, and the steps from row to row.
struct Cache<'a> {
    format: KvFormat,
    k: &'a Tensor,
    v: &'a Tensor,
    scales: Option<&'a Tensor>,
    table: Option<&'a Tensor>,
    block_rows: u32,
    head_rows: u32,
    key_rows: u32,
    /// Not 0: shaders divide by it.
    block: u32,
    blocks: u32,
    /// Whether the shader must know of more than keys at equal steps.
    paged: bool,
}

struct Operands<'a> {
    q: &'a Tensor,
    cache: Cache<'a>,
    out: &'a Tensor,
    workspace: &'a Tensor,
    options: Options<'a>,
    bias: BiasSteps,
}

/// Lanes that every subgroup has at least: Intel's compiler chooses 8, 16 or 32 for each shader anew.
fn narrowest_subgroup(caps: &Caps) -> u32 {
    const INTEL: u32 = 0x8086;
    caps.subgroup_size.min(if caps.vendor == INTEL { 8 } else { 16 })
}

/// One launch, or two if the keys are split.
fn launch(recorder: &mut Recorder<'_, '_>, s: &Sizes, o: &Operands<'_>, splits: Option<u32>) -> Result<()> {
    let kernel = ATTENTION_DECODE.name;
    let Operands { q, cache, out, workspace, options, bias } = o;
    let gpu = recorder.gpu().clone();
    let caps = gpu.caps();
    let subgroup = narrowest_subgroup(caps);
    let extra = options.mask().is_some() || options.soft_cap.is_some();
    let store = spec::Store { format: cache.format, paged: cache.paged, extra };
    let plan = |tier| match tier {
        Tier::Spirv => fragments::plan(caps, s, store, splits),
        _ => spec::decode_variant(tier, s.dtype, store, s.rows(), (s.d, s.d_v), subgroup),
    };
    let (tier, mut defines, needs) =
        recorder.choose(&ATTENTION_DECODE, |tier| plan(tier).map(|plan| plan.variant.into()))?;
    let (served, resident) = plan(tier).map_or((1, 1), |plan| (plan.rows, plan.resident));
    let splits = match splits {
        Some(most) => Splits::of(s.kv_len, most),
        None => Splits::plan(caps, s, served, resident),
    };
    // Sinks and sums are the merge's.
    let splits = if options.merged() { splits.at_least_two() } else { splits };
    // Fits: q's elements do.
    let all_rows = s.b * s.sq * s.hq;
    let need = splits.workspace(u64::from(all_rows), u64::from(s.d_v));
    within_u32("attention_decode: workspace", need)?;
    if (workspace.len() as u64) < need {
        let by = if options.merged() { "merged_workspace_len" } else { "workspace_len" };
        let want = format!("at least {need} elements ({by})");
        return Err(Error::shape(kernel, "workspace's length", workspace.len(), want));
    }
    if workspace.overlaps(out) {
        return Err(Error::shape(kernel, "workspace", "overlapping out", "memory of its own"));
    }
    let tiles = s.rows().div_ceil(served);
    let all_tiles = s.b * s.hkv * tiles;
    let groups = all_tiles * splits.count;
    // Sinks and sums are for a launch of its own.
    let joint_words = match tier {
        Tier::Spirv if !options.merged() => fragments::joint_words(s, all_tiles, splits.count),
        _ => None,
    };
    if joint_words.is_some() {
        fragments::join(&mut defines);
    }
    let joint = joint_words.map(|words| gpu.joint(words)).transpose()?;
    let parts = Parts { workspace, out, rows: all_rows, splits: splits.count, d: s.d_v, heads: s.hq };
    let merged = splits.count > 1 && joint.is_none();
    if merged {
        parts.check(recorder, options.sinks, options.lse)?;
    }
    // The softmax is taken to base 2.
    let log2_e = std::f32::consts::LOG2_E;
    recorder.launch(Launch {
        spec: &ATTENTION_DECODE,
        tier,
        defines,
        needs,
        binds: &[
            q,
            cache.k,
            cache.v,
            cache.scales.unwrap_or(q),
            cache.table.unwrap_or(q),
            options.mask().unwrap_or(q),
            out,
            joint.as_ref().unwrap_or(workspace),
        ],
        params: spec::DecodeParams {
            sq: s.sq,
            kv_len: s.kv_len,
            heads: s.hq,
            kv_heads: s.hkv,
            d8: s.d / 8,
            e8: s.d_v / 8,
            block_rows: cache.block_rows,
            head_rows: cache.head_rows,
            key_rows: cache.key_rows,
            block: cache.block,
            table: cache.table.map_or(0, |table| table.cols() as u32),
            tiles,
            splits: splits.count,
            groups,
            // Fits: within_u32 has looked at the whole workspace; unused with one split.
            stats: if splits.count > 1 { all_rows * splits.count * s.d_v } else { 0 },
            causal: u32::from(options.causal),
            window: options.window_word(s.sq, s.kv_len),
            kind: spec::kind(s.dtype),
            scale: options.scale * log2_e,
            soft_cap: options.soft_cap.map_or(0.0, |cap| cap * log2_e),
            blocks: cache.blocks,
            bias: bias.some,
            bias_b: bias.b,
            bias_h: bias.h,
            bias_q: bias.q,
        },
        groups: u64::from(groups),
    })?;
    if merged {
        recorder.at_any_tier(|recorder| merge(recorder, &parts, options.sinks, options.lse))?;
    }
    Ok(())
}

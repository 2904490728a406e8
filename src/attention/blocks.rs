//! Attention over the blocks of a cache: checks, and many queries at once.

use super::decode::record_paged_split;
use super::options::BiasSteps;
use super::{
    ATTENTION_PAGED, AttentionPaged, MAX_DECODE, Options, Sizes, check_q, prefill_params, spec, within_u32,
};
use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder};
use crate::kv::KvShape;

/// Records attention over a cache in blocks: as [`record_any`](super::record_any), with keys and values of any format,
/// contiguous or paged, and sequences of different lengths.
///
/// Lengths and numbers of blocks in a table are not known when the call is recorded: a length past the longest or past
/// its row of the table is cut off, and a number past the last block stands for the last.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Limit`] from 2³² elements of q,
/// [`Error::Unsupported`] for f16 queries without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::attention::{self, AttentionPaged, Options};
/// use wgmarlin::kv::{Context, KvBlocks, KvFormat, KvShape};
/// use wgmarlin::{DType, Gpu};
/// let gpu = Gpu::new()?;
/// let shape = KvShape { blocks: 4, kv_heads: 1, block: 16, d: 8, d_v: 8 };
/// let cache = KvBlocks::new(&gpu, KvFormat::Int8, shape)?; // filled by kv::record
/// // A sequence of 20 rows in blocks 3 and 0, one of 5 in block 1.
/// let table = gpu.tensor(&[2, 3], &[20u32, 3, 0, 5, 1, 0])?;
/// let q = gpu.tensor(&[2, 1, 4, 8], &[0.5f32; 64])?;
/// let out = gpu.alloc(DType::F32, &[2, 1, 4, 8])?;
/// let workspace = gpu.alloc(DType::F32, &[attention::workspace_len(&gpu, 2, 1, 4, 1, 8, 32)])?;
/// gpu.run(|r| {
///     let context = Context::Paged { table: &table, longest: 20 };
///     let (q, cache, out, workspace) = (&q, &cache, &out, &workspace);
///     let options = Options::causal(1.0 / 8f32.sqrt());
///     attention::record_paged(r, &AttentionPaged { q, cache, context, out, options, workspace })
/// })?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_paged(recorder: &mut Recorder<'_, '_>, request: &AttentionPaged<'_>) -> Result<()> {
    // The tiles have one binding for a bias, a tree or sinks: with more they would need more than every adapter has.
    let Options { bias, tree, sinks, .. } = request.options;
    let tiled = bias.is_none() && (tree.is_none() || sinks.is_none());
    match request.q.shape().get(1) {
        Some(&sq) if sq > MAX_DECODE && tiled => record_tiles(recorder, request),
        _ => record_paged_split(recorder, request, None),
    }
}

/// As [`record_paged`] of many queries without a bias, and not with both a tree and sinks.
pub(super) fn record_tiles(recorder: &mut Recorder<'_, '_>, request: &AttentionPaged<'_>) -> Result<()> {
    let AttentionPaged { q, cache, context, out, options, .. } = *request;
    let Some((s, mask, blocks)) = check(ATTENTION_PAGED.name, request)? else { return Ok(()) };
    let extras = spec::Extras::Blocks(cache.format);
    let spec::Prefill { tier, defines, needs, rows } =
        spec::prefill_plan(recorder, &ATTENTION_PAGED, &s, extras)?;
    let params = spec::AttentionParams {
        bias: mask.some,
        bias_b: mask.b,
        bias_h: mask.h,
        bias_q: mask.q,
        block: s.capacity.max(1),
        blocks,
        table: context.table().map_or(0, |table| table.cols() as u32),
        ..prefill_params(&s, &options, rows)
    };
    recorder.launch(Launch {
        spec: &ATTENTION_PAGED,
        tier,
        defines,
        needs,
        // What is absent is bound to what is bound in the same way.
        binds: &[
            q,
            &cache.k,
            &cache.v,
            if cache.format.quantised() { &cache.scales } else { q },
            context.table().unwrap_or(q),
            options.sinks.or(options.tree).unwrap_or(q),
            out,
            options.lse.unwrap_or(out),
        ],
        groups: u64::from(params.groups),
        params,
    })
}

/// Checks a request; sizes (the capacity is that of a block), the bias, and the number of blocks. `None` if there is
/// nothing to compute.
pub(super) fn check(
    kernel: &'static str,
    request: &AttentionPaged<'_>,
) -> Result<Option<(Sizes, BiasSteps, u32)>> {
    let AttentionPaged { q, cache, context, out, options, .. } = *request;
    let KvShape { blocks, kv_heads, block, d, d_v } = cache.shape;
    cache.check(kernel)?;
    let [b, sq, hq, width] = check_q(kernel, q)?;
    if width != d {
        return Err(Error::shape(kernel, "q's head size D", width, format!("the cache's {d}")));
    }
    if hq % kv_heads != 0 {
        let want = format!("a multiple of the cache's {kv_heads}");
        return Err(Error::shape(kernel, "q's number of heads Hq", hq, want));
    }
    out.expect(kernel, "out", &[q.dtype()], &[b, sq, hq, d_v])?;
    within_u32(&format!("{kernel}: out"), out.len() as u64)?;
    let kv_len = context.check(kernel, b, blocks, block)?;
    let bias = options.check(kernel, [b, sq, hq], kv_len)?;
    if q.is_empty() {
        return Ok(None);
    }
    // Bounded by lengths that were checked, here and when the cache was made.
    let [b, sq, hq, hkv, d, d_v, kv_len] = [b, sq, hq, kv_heads, d, d_v, kv_len].map(|n| n as u32);
    let [block, blocks] = if cache.k.is_empty() { [0, 0] } else { [block, blocks].map(|n| n as u32) };
    let s = Sizes { dtype: q.dtype(), b, sq, hq, hkv, d, d_v, capacity: block, kv_len };
    Ok(Some((s, bias, blocks)))
}

//! Attention probabilities as an output.

use super::probs_spec::{self, ATTENTION_PROBS, ProbsParams};
use super::{Options, check_qk, within_u32};
use crate::error::Result;
use crate::kernel::{Launch, Recorder};
use crate::tensor::{DType, Tensor};

/// The probabilities of attention, for analysis. They need Sq·Sk elements a head: attention itself never stores them.
#[derive(Clone, Copy, Debug)]
pub struct AttentionProbs<'a> {
    /// \[B, Sq, Hq, D\], f32, f16 or bf16; D a multiple of 8 up to 256.
    pub q: &'a Tensor,
    /// \[B, C, Hkv, D\], like `q`; Hq a multiple of Hkv.
    pub k: &'a Tensor,
    /// f32 \[B, Hq, Sq, `kv_len`\].
    pub out: &'a Tensor,
    /// The first `kv_len` of the C rows are valid.
    pub kv_len: usize,
    /// Sinks take their share of a row, but have no column.
    pub options: Options<'a>,
}

/// Records out = softmax(scale·Q·Kᵀ + mask) over the keys. Masked keys, and all keys of a query that sees none, get 0.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::Value`](crate::Error::Value) naming the argument,
/// [`Error::Limit`](crate::Error::Limit) from 2³² elements of q, k or out,
/// [`Error::Unsupported`](crate::Error::Unsupported) for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, attention};
/// let gpu = Gpu::new()?;
/// let q = gpu.tensor(&[1, 2, 2, 8], &[0.5f32; 32])?;
/// let k = gpu.tensor(&[1, 3, 1, 8], &[0.25f32; 24])?;
/// let out = gpu.alloc(DType::F32, &[1, 2, 2, 3])?;
/// gpu.run(|r| {
///     let (q, k, out, options) = (&q, &k, &out, attention::Options::causal(1.0));
///     attention::record_probs(r, &attention::AttentionProbs { q, k, out, kv_len: 3, options })
/// })?;
/// println!("{:?}", gpu.read::<f32>(&out)?); // 1/2, 1/2, 0 and 1/3, 1/3, 1/3 of both heads
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_probs(recorder: &mut Recorder<'_, '_>, request: &AttentionProbs<'_>) -> Result<()> {
    let kernel = ATTENTION_PROBS.name;
    let AttentionProbs { q, k, out, kv_len, options } = *request;
    let (s, bias) = check_qk(kernel, q, k, kv_len, &options)?;
    let [b, sq, hq] = [s.b, s.sq, s.hq].map(|n| n as usize);
    out.expect(kernel, "out", &[DType::F32], &[b, hq, sq, kv_len])?;
    within_u32(&format!("{kernel}: out"), out.len() as u64)?;
    if q.is_empty() {
        return Ok(());
    }
    let (tier, defines, needs) =
        recorder.choose(&ATTENTION_PROBS, |_| Ok(probs_spec::variant(s.dtype).into()))?;
    let tiles = s.rows().div_ceil(probs_spec::ROWS);
    let groups = s.b * s.hkv * tiles;
    recorder.launch(Launch {
        spec: &ATTENTION_PROBS,
        tier,
        defines,
        needs,
        // What is absent is bound to what is bound in the same way.
        binds: &[
            q,
            k,
            options.mask().unwrap_or(q),
            options.sinks.unwrap_or(q),
            out,
            options.lse.unwrap_or(out),
        ],
        params: ProbsParams {
            sq: s.sq,
            kv_len: s.kv_len,
            capacity: s.capacity,
            heads: s.hq,
            kv_heads: s.hkv,
            d4: s.d / 4,
            tiles,
            groups,
            causal: u32::from(options.causal),
            scale: options.scale,
            window: options.window_word(s.sq, s.kv_len),
            soft_cap: options.soft_cap.unwrap_or(0.0),
            sinks: u32::from(options.sinks.is_some()),
            lse: u32::from(options.lse.is_some()),
            bias: bias.some,
            bias_b: bias.b,
            bias_h: bias.h,
            bias_q: bias.q,
        },
        groups: u64::from(groups),
    })
}

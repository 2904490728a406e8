//! Results over parts of the keys, merged into results over all.

use super::merge_spec::{self, ATTENTION_MERGE, MERGE_LSE, MergeParams};
use super::plan::MAX_SPLITS;
use super::{check_width, spec, within_u32};
use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder};
use crate::tensor::{DType, Tensor};

/// Results of attention over parts of the keys, each with its sums of exponentials.
#[derive(Clone, Copy, Debug)]
pub struct MergeLse<'a> {
    /// \[P, B, Sq, Hq, D\], f32, f16 or bf16: `out` of each of 1 to 256 parts. D a multiple of 8 up to 256.
    pub parts: &'a Tensor,
    /// f32 \[P, B, Sq, Hq\]: what [`Options::lse`](super::Options::lse) received for each; −1e30 where a query saw no key
    /// of the part.
    pub lses: &'a Tensor,
    /// \[B, Sq, Hq, D\], like `parts`, in another buffer.
    pub out: &'a Tensor,
    /// As [`Options::sinks`](super::Options::sinks), if the parts had none: sinks count once.
    pub sinks: Option<&'a Tensor>,
    /// f32 \[B, Sq, Hq\]: receives ln Σ exp(s) of the whole, −1e30 where a query saw no key.
    pub lse: Option<&'a Tensor>,
}

/// Records the merge of results over parts of the keys, however they were split (over devices, shared prefixes and
/// suffixes, pieces of a cache): out = Σ exp(lseₚ)·partₚ / Σ exp(lseₚ) (Rabe and Staats, "Self-attention Does Not Need
/// O(n²) Memory", 2021). The order of summation is fixed.
///
/// # Errors
/// [`Error::Shape`] naming the argument, [`Error::Limit`] from 2³² elements of the parts, [`Error::Unsupported`] for f16
/// without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{DType, Gpu, attention};
/// let gpu = Gpu::new()?;
/// // One query of one head, over two parts of which the second weighs three times as much.
/// let parts = gpu.tensor(&[2, 1, 1, 1, 8], &[[0.0f32; 8], [4.0; 8]].concat())?;
/// let lses = gpu.tensor(&[2, 1, 1, 1], &[0.0, 3f32.ln()])?;
/// let out = gpu.alloc(DType::F32, &[1, 1, 1, 8])?;
/// let (parts, lses) = (&parts, &lses);
/// let request = attention::MergeLse { parts, lses, out: &out, sinks: None, lse: None };
/// gpu.run(|r| attention::record_merge(r, &request))?;
/// println!("{:?}", gpu.read::<f32>(&out)?); // 3
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_merge(recorder: &mut Recorder<'_, '_>, request: &MergeLse<'_>) -> Result<()> {
    let kernel = MERGE_LSE.name;
    let MergeLse { parts, lses, out, sinks, lse } = *request;
    parts.expect(kernel, "parts", &spec::DTYPES, parts.shape())?;
    let &[count, b, sq, heads, d] = parts.shape() else {
        return Err(Error::shape(kernel, "parts", parts.shape(), "[P, B, Sq, Hq, D]"));
    };
    if count == 0 || count > MAX_SPLITS {
        return Err(Error::shape(kernel, "number of parts P", count, format!("1 to {MAX_SPLITS}")));
    }
    check_width(kernel, "parts' head size D", d)?;
    lses.expect(kernel, "lses", &[DType::F32], &[count, b, sq, heads])?;
    out.expect(kernel, "out", &[parts.dtype()], &[b, sq, heads, d])?;
    if let Some(sinks) = sinks {
        sinks.expect(kernel, "sinks", &[DType::F32], &[heads])?;
    }
    if let Some(lse) = lse {
        lse.expect(kernel, "lse", &[DType::F32], &[b, sq, heads])?;
    }
    within_u32(&format!("{kernel}: parts"), parts.len() as u64)?;
    if out.is_empty() {
        return Ok(());
    }
    let (tier, defines, needs) =
        recorder.choose(&MERGE_LSE, |tier| Ok(merge_spec::variant(tier, parts.dtype(), true).into()))?;
    // All are bounded by the length of the parts.
    let [splits, rows, heads, d] = [count, out.rows(), heads, d].map(|n| n as u32);
    recorder.launch(Launch {
        spec: &MERGE_LSE,
        tier,
        defines,
        needs,
        binds: &[parts, lses, sinks.unwrap_or(lses), out, lse.unwrap_or(out)],
        params: params(rows, splits, d, heads, sinks, lse),
        groups: merge_spec::groups(rows, d),
    })
}

fn params(
    rows: u32,
    splits: u32,
    d: u32,
    heads: u32,
    sinks: Option<&Tensor>,
    lse: Option<&Tensor>,
) -> MergeParams {
    let (sinks, lse) = (u32::from(sinks.is_some()), u32::from(lse.is_some()));
    MergeParams { rows, splits, d4: d / 4, heads, sinks, lse }
}

/// The parts of `rows` rows of results of width `d`, a query's heads together, as `attention_decode` leaves them.
pub(super) struct Parts<'a> {
    pub workspace: &'a Tensor,
    pub out: &'a Tensor,
    pub rows: u32,
    pub splits: u32,
    pub d: u32,
    pub heads: u32,
}

/// The second launch of a split decode.
pub(super) fn merge(
    recorder: &mut Recorder<'_, '_>,
    parts: &Parts<'_>,
    sinks: Option<&Tensor>,
    lse: Option<&Tensor>,
) -> Result<()> {
    let Parts { out, rows, splits, d, heads, .. } = *parts;
    let plan = |tier| Ok(merge_spec::variant(tier, out.dtype(), false).into());
    let (tier, defines, needs) = recorder.choose(&ATTENTION_MERGE, plan)?;
    recorder.launch(Launch {
        spec: &ATTENTION_MERGE,
        tier,
        defines,
        needs,
        binds: &parts.binds(sinks, lse),
        params: params(rows, splits, d, heads, sinks, lse),
        groups: merge_spec::groups(rows, d),
    })
}

impl<'a> Parts<'a> {
    fn binds(&self, sinks: Option<&'a Tensor>, lse: Option<&'a Tensor>) -> [&'a Tensor; 4] {
        let Parts { workspace, out, .. } = *self;
        [workspace, sinks.unwrap_or(workspace), out, lse.unwrap_or(out)]
    }

    /// Whether they can be merged so, asked before anything is recorded.
    pub fn check(
        &self,
        recorder: &Recorder<'_, '_>,
        sinks: Option<&Tensor>,
        lse: Option<&Tensor>,
    ) -> Result<()> {
        recorder.check(&ATTENTION_MERGE, &self.binds(sinks, lse))
    }
}

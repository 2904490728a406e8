//! Attention over sequences of different lengths that are packed one behind the other.

use super::spec::{ATTENTION_VARLEN, Extras, Prefill, prefill_plan};
use super::{Options, Sizes, check_heads, check_width, prefill_params, spec, within_u32};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder};
use crate::tensor::{DType, Tensor};

/// The lengths of packed sequences: sums on the host, and on the GPU the table of where each starts (the
/// `cu_seqlens_q` and `cu_seqlens_k` of FlashAttention in one). Made once for a batch, it serves all layers; no call
/// reads it back.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// \[N + 1, 2\]: queries and keys before each sequence, and all of them.
    table: Tensor,
    /// Of all sequences together: queries, keys.
    totals: [usize; 2],
    /// Of the one that has the most.
    longest: [usize; 2],
}

impl Sequences {
    /// Uploads a table for sequences of (queries, keys) each, any of which may be 0.
    ///
    /// # Errors
    /// [`Error::Limit`] from 2³² queries or keys in all, and what [`Gpu::tensor`] gives.
    pub fn new(gpu: &Gpu, lens: &[(usize, usize)]) -> Result<Sequences> {
        let (mut totals, mut longest) = ([0usize; 2], [0; 2]);
        let mut starts = vec![0u32; 2];
        for &(queries, keys) in lens {
            for (i, len) in [queries, keys].into_iter().enumerate() {
                totals[i] = totals[i].saturating_add(len);
                longest[i] = len.max(longest[i]);
                let what = ["Sequences: queries in all", "Sequences: keys in all"][i];
                within_u32(what, totals[i] as u64)?;
                starts.push(totals[i] as u32);
            }
        }
        let table = gpu.tensor(&[lens.len() + 1, 2], &starts)?;
        Ok(Sequences { table, totals, longest })
    }

    /// The number of sequences.
    pub fn count(&self) -> usize {
        self.table.rows() - 1
    }

    /// Queries and keys of all sequences together.
    pub fn totals(&self) -> (usize, usize) {
        (self.totals[0], self.totals[1])
    }
}

/// Attention of many queries, of sequences packed one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct AttentionVarlen<'a> {
    /// \[all queries, Hq, D\], f32, f16 or bf16; D a multiple of 8 up to 256.
    pub q: &'a Tensor,
    /// \[all keys, Hkv, D\], like `q`; Hq a multiple of Hkv.
    pub k: &'a Tensor,
    /// \[all keys, Hkv, Dv\], like `k`; Dv a multiple of 8 up to 256.
    pub v: &'a Tensor,
    /// \[all queries, Hq, Dv\], like `q`.
    pub out: &'a Tensor,
    /// Which of the rows belong to which sequence. A causal mask is each sequence's own: its last query meets its last
    /// key.
    pub sequences: &'a Sequences,
    /// Without a bias or a tree, which are shaped by one length for all; `lse` is \[all queries, Hq\].
    pub options: Options<'a>,
}

/// Records attention of packed sequences: as [`record`](super::record) of each by itself, in one launch. The grid has a
/// tile of 64 rows for each that the longest sequence has, in every sequence; those past a sequence's end leave at once.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Limit`] from 2³² elements of a tensor,
/// [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::attention::{self, AttentionVarlen, Options, Sequences};
/// use wgmarlin::{DType, Gpu};
/// let gpu = Gpu::new()?;
/// // A prompt of three tokens, and one more token of a sequence that has four keys by now.
/// let sequences = Sequences::new(&gpu, &[(3, 3), (1, 4)])?;
/// let q = gpu.tensor(&[4, 2, 8], &[0.5f32; 64])?;
/// let k = gpu.tensor(&[7, 1, 8], &[0.25f32; 56])?;
/// let v = gpu.tensor(&[7, 1, 8], &[1.0f32; 56])?;
/// let out = gpu.alloc(DType::F32, &[4, 2, 8])?;
/// gpu.run(|r| {
///     let (q, k, v, out, sequences) = (&q, &k, &v, &out, &sequences);
///     let options = Options::causal(1.0 / 8f32.sqrt());
///     attention::record_varlen(r, &AttentionVarlen { q, k, v, out, sequences, options })
/// })?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_varlen(recorder: &mut Recorder<'_, '_>, request: &AttentionVarlen<'_>) -> Result<()> {
    let AttentionVarlen { q, k, v, out, sequences, options } = *request;
    let Some(s) = check(request)? else { return Ok(()) };
    let Prefill { tier, defines, needs, rows } =
        prefill_plan(recorder, &ATTENTION_VARLEN, &s, Extras::Varlen)?;
    let groups = u64::from(s.b) * u64::from(s.hkv) * u64::from(s.tiles(rows));
    within_u32("attention_varlen: tiles of the longest sequence, for all", groups)?;
    recorder.launch(Launch {
        spec: &ATTENTION_VARLEN,
        tier,
        defines,
        needs,
        // What is absent is bound to what is bound in the same way.
        binds: &[q, k, v, &sequences.table, options.sinks.unwrap_or(q), out, options.lse.unwrap_or(out)],
        params: prefill_params(&s, &options, rows),
        groups,
    })
}

/// `None` if there is nothing to compute.
fn check(request: &AttentionVarlen<'_>) -> Result<Option<Sizes>> {
    let kernel = ATTENTION_VARLEN.name;
    let AttentionVarlen { q, k, v, out, sequences, options } = *request;
    let (queries, keys) = sequences.totals();
    let dtype = q.dtype();
    let &[_, hq, d] = q.shape() else {
        return Err(Error::shape(kernel, "q", q.shape(), "[all queries, Hq, D]"));
    };
    q.expect(kernel, "q", &spec::DTYPES, &[queries, hq, d])?;
    check_width(kernel, "q's head size D", d)?;
    let &[_, hkv, _] = k.shape() else {
        return Err(Error::shape(kernel, "k", k.shape(), "[all keys, Hkv, D]"));
    };
    check_heads(kernel, hq, hkv)?;
    k.expect(kernel, "k", &[dtype], &[keys, hkv, d])?;
    let d_v = v.cols();
    v.expect(kernel, "v", &[dtype], &[keys, hkv, d_v])?;
    check_width(kernel, "v's head size Dv", d_v)?;
    out.expect(kernel, "out", &[dtype], &[queries, hq, d_v])?;
    for (what, tensor) in [("bias", options.bias), ("tree", options.tree)] {
        if let Some(tensor) = tensor {
            return Err(Error::value(kernel, what, tensor.shape(), "None for packed sequences"));
        }
    }
    Options { lse: None, ..options }.check(kernel, [1, queries, hq], sequences.longest[1])?;
    if let Some(lse) = options.lse {
        lse.expect(kernel, "lse", &[DType::F32], &[queries, hq])?;
    }
    for (what, tensor) in [("q", q), ("k", k), ("v", v), ("out", out)] {
        within_u32(&format!("{kernel}: {what}"), tensor.len() as u64)?;
    }
    if q.is_empty() {
        return Ok(None);
    }
    // No dimension exceeds its tensor's length, which fits; the table holds the number of sequences.
    let [b, sq, hq, hkv, d, d_v, kv_len] =
        [sequences.count(), sequences.longest[0], hq, hkv, d, d_v, sequences.longest[1]].map(|n| n as u32);
    Ok(Some(Sizes { dtype, b, sq, hq, hkv, d, d_v, capacity: 0, kv_len }))
}

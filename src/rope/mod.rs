//! Rotary position embedding (Su et al., "RoFormer", 2021) of queries and keys, in place and in one launch.
//!
//! The frequencies are a tensor, so that every scaling of them (linear, NTK, Llama-3, YaRN) is a host-side choice.

mod cpu;
mod spec;
#[cfg(test)]
mod tests;

pub use cpu::{inv_freq, rope};
pub use spec::ROPE;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::tensor::{DType, Tensor};

/// Which elements of a head form a pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Pairing {
    /// i and i + rotary/2, as Hugging Face checkpoints want it ("NeoX").
    HalfSplit,
    /// 2i and 2i + 1, as the paper and GPT-J have it.
    Interleaved,
}

/// Turns pair i of every head of token t by the angle positions\[t\] · inv_freq\[i\], in place. The first
/// 2·inv_freq.len() elements of a head are turned, the others stay as they are.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// \[T, Hq, D\], f32 or f16.
    pub q: &'a Tensor,
    /// \[R, Hkv, D\], like `q`; must not overlap it.
    pub k: Option<&'a Tensor>,
    /// Token t is row `k_row` + t of `k`, so that keys can be turned inside a cache; T more rows must be there.
    pub k_row: usize,
    /// \[T\], u32. Angles are exact to 1e-6 radians at every position.
    pub positions: &'a Tensor,
    /// \[rotary/2\], f32, radians a position, at most 2 in magnitude; see [`inv_freq`].
    pub inv_freq: &'a Tensor,
    pub pairing: Pairing,
    /// Factor of the turned elements (YaRN's attention scaling, otherwise 1); finite.
    pub mscale: f32,
}

/// Records one rotation.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Unsupported`] for f16 without `SHADER_F16`.
///
/// ```no_run
/// use wgmarlin::{Gpu, rope};
/// let gpu = Gpu::new()?;
/// let q = gpu.tensor(&[1, 2, 4], &[1.0f32; 8])?;
/// let k = gpu.tensor(&[1, 1, 4], &[1.0f32; 4])?;
/// let positions = gpu.tensor(&[1], &[7u32])?;
/// let inv_freq = gpu.tensor(&[2], &rope::inv_freq(4, 10_000.0))?;
/// gpu.run(|r| {
///     rope::record(r, &rope::Rope {
///         q: &q,
///         k: Some(&k),
///         k_row: 0,
///         positions: &positions,
///         inv_freq: &inv_freq,
///         pairing: rope::Pairing::HalfSplit,
///         mscale: 1.0,
///     })
/// })?;
/// println!("{:?}", gpu.read::<f32>(&q)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &Rope<'_>) -> Result<()> {
    const KERNEL: &str = "rope";
    let Rope { q, k, k_row, positions, inv_freq, pairing, mscale } = *request;
    let dtype = q.dtype();
    let &[tokens, q_heads, head_dim] = q.shape() else {
        return Err(Error::shape(KERNEL, "q", q.shape(), "three dimensions: tokens, heads, head dimension"));
    };
    q.expect(KERNEL, "q", &[DType::F32, DType::F16], q.shape())?;
    let mut k_heads = 0;
    if let Some(k) = k {
        let &[rows, heads, _] = k.shape() else {
            return Err(Error::shape(
                KERNEL,
                "k",
                k.shape(),
                "three dimensions: rows, heads, head dimension",
            ));
        };
        k_heads = heads;
        k.expect(KERNEL, "k", &[dtype], &[rows, heads, head_dim])?;
        if k_row.checked_add(tokens).is_none_or(|end| end > rows) {
            let want = format!("at most {rows} rows of k less {tokens} tokens");
            return Err(Error::value(KERNEL, "k_row", k_row, want));
        }
        if k.overlaps(q) {
            return Err(Error::shape(KERNEL, "k", "overlapping q", "a tensor apart"));
        }
        index32(KERNEL, "k", k.len())?;
    }
    positions.expect(KERNEL, "positions", &[DType::U32], &[tokens])?;
    let pairs = inv_freq.len();
    inv_freq.expect(KERNEL, "inv_freq", &[DType::F32], &[pairs])?;
    if pairs.saturating_mul(2) > head_dim {
        let want = format!("at most {} pairs, half of D = {head_dim}", head_dim / 2);
        return Err(Error::shape(KERNEL, "inv_freq", pairs, want));
    }
    if !mscale.is_finite() {
        return Err(Error::value(KERNEL, "mscale", mscale, "finite"));
    }
    let wide = head_dim.is_multiple_of(4) && pairs.is_multiple_of(4);
    let width = if wide { 4 } else { 1 };
    index32(KERNEL, "q", q.len())?;
    let heads = q_heads.saturating_add(k_heads);
    let blocks = heads.div_ceil(spec::HEADS as usize);
    let units = pairs / width;
    let threads = tokens.saturating_mul(blocks).saturating_mul(units);
    let count = index32(KERNEL, "pairs", threads)?;
    let variant = spec::variant(dtype, pairing, wide);
    let (tier, defines, needs) = recorder.choose(&ROPE, |_| Ok(variant.clone().into()))?;
    let small = |n: usize| index32(KERNEL, "shape", n);
    recorder.launch(Launch {
        spec: &ROPE,
        tier,
        defines,
        needs,
        // Without keys q stands in: with no head of k it is never touched through that binding.
        binds: &[q, k.unwrap_or(q), positions, inv_freq],
        params: spec::RopeParams {
            count,
            units: small(units)?,
            blocks: small(blocks)?,
            q_heads: small(q_heads)?,
            k_heads: small(k_heads)?,
            head_units: small(head_dim / width)?,
            partner: if pairing == Pairing::HalfSplit { small(units)? } else { 1 },
            k_row: if k.is_some() { small(k_row)? } else { 0 },
            mscale,
        },
        groups: u64::from(count).div_ceil(u64::from(spec::THREADS)),
    })
}

//! What all attention kernels can do beyond softmax(scale·Q·Kᵀ)·V.

use super::within_u32;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Which keys a query sees, and what happens to its scores: s = scale·q·k; s = cap·tanh(s / cap); s += bias.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Factor of the scores, usually 1/√D; finite.
    pub scale: f32,
    /// Query i of Sq sees keys 0..=i + len − Sq: the last query meets the last key of its sequence. Without, every
    /// query sees all.
    pub causal: bool,
    /// A causal query sees this many keys at most, the last of them its own ("sliding window", Beltagy et al.,
    /// "Longformer", 2020). At least 1.
    pub window: Option<usize>,
    /// Scores are bent into ±cap (Gemma 2, 2024); positive, finite.
    pub soft_cap: Option<f32>,
    /// f32 \[B, Hq, Sq, Sk or more\], any of the first three 1 for all: added to the score of query and key. Finite;
    /// −1e30 masks.
    pub bias: Option<&'a Tensor>,
    /// U32 \[B or 1, Sq, ⌈Sq / 32⌉\]: the queries are the nodes of a tree of drafts, and so are the last Sq keys, in the
    /// same order, parents before children. Query i sees all keys before them, and of the nodes up to itself those
    /// whose bit is set: bit j % 32 of word j / 32 for node j. [`tree::record_mask`](crate::tree::record_mask) makes it
    /// of parents ("SpecInfer", Miao et al., 2023). A window counts along the branch. With a causal mask, without a bias.
    pub tree: Option<&'a Tensor>,
    /// f32 \[Hq\], finite: for each head the score of one more key that all queries see, whose value is 0
    /// ("attention sinks", as gpt-oss has them, 2025).
    pub sinks: Option<&'a Tensor>,
    /// f32 \[B, Sq, Hq\]: receives ln Σ exp(s) over the keys (and the sink) of a query, −1e30 where it sees none. With
    /// it, results over parts of the keys can be merged.
    pub lse: Option<&'a Tensor>,
}

/// How a shader finds the bias or the tree: 0 for none, [`BIAS`] or [`TREE`], and the steps from sequence to sequence,
/// head to head, query to query. A tree is the same for all heads; its window stands in place of their step.
#[derive(Clone, Copy, Default)]
pub(super) struct BiasSteps {
    pub some: u32,
    pub b: u32,
    pub h: u32,
    pub q: u32,
}

pub(super) const BIAS: u32 = 1;
pub(super) const TREE: u32 = 2;

impl<'a> Options<'a> {
    /// The usual mask of a language model.
    pub const fn causal(scale: f32) -> Options<'a> {
        let (window, soft_cap, bias, tree, sinks, lse) = (None, None, None, None, None, None);
        Options { scale, causal: true, window, soft_cap, bias, tree, sinks, lse }
    }

    /// Every query sees every key.
    pub const fn full(scale: f32) -> Options<'a> {
        Options { causal: false, ..Options::causal(scale) }
    }

    /// Whether it asks for more than a scale and a causal mask.
    pub(super) fn extras(&self) -> bool {
        let Options { window, soft_cap, .. } = self;
        window.is_some() || soft_cap.is_some() || self.mask().is_some() || self.merged()
    }

    /// The bias or the tree, which share a binding.
    pub(super) fn mask(&self) -> Option<&'a Tensor> {
        self.bias.or(self.tree)
    }

    /// Whether `attention_decode` needs the merge even of one part.
    pub(super) fn merged(&self) -> bool {
        self.sinks.is_some() || self.lse.is_some()
    }

    /// Checks against \[B, Sq, Hq\] queries and the longest sequence.
    pub(super) fn check(
        &self,
        kernel: &'static str,
        [b, sq, hq]: [usize; 3],
        kv_len: usize,
    ) -> Result<BiasSteps> {
        if !self.scale.is_finite() {
            return Err(Error::value(kernel, "scale", self.scale, "finite"));
        }
        match self.window {
            Some(0) => return Err(Error::value(kernel, "window", 0, "at least 1")),
            Some(window) if !self.causal => {
                return Err(Error::value(kernel, "window", window, "None without a causal mask"));
            }
            _ => {}
        }
        if let Some(cap) = self.soft_cap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
            return Err(Error::value(kernel, "soft_cap", cap, "positive and finite"));
        }
        if let Some(sinks) = self.sinks {
            sinks.expect(kernel, "sinks", &[DType::F32], &[hq])?;
        }
        if let Some(lse) = self.lse {
            lse.expect(kernel, "lse", &[DType::F32], &[b, sq, hq])?;
        }
        if let Some(tree) = self.tree {
            return self.check_tree(kernel, tree, [b, sq], kv_len);
        }
        let Some(bias) = self.bias else { return Ok(BiasSteps::default()) };
        bias.expect(kernel, "bias", &[DType::F32], bias.shape())?;
        let want = || {
            let want = format!("[{b} or 1, {hq} or 1, {sq} or 1, {kv_len} or more]");
            Error::shape(kernel, "bias", bias.shape(), want)
        };
        let &[bias_b, bias_h, bias_q, keys] = bias.shape() else { return Err(want()) };
        let fits = |has: usize, n: usize| has == n || has == 1;
        if !(fits(bias_b, b) && fits(bias_h, hq) && fits(bias_q, sq)) || keys < kv_len {
            return Err(want());
        }
        within_u32(&format!("{kernel}: bias"), bias.len() as u64)?;
        // No step is longer than the tensor, but for steps that are never taken.
        let step = |has: usize, step: usize| if has > 1 { step as u32 } else { 0 };
        let (q, h, b) =
            (step(bias_q, keys), step(bias_h, bias_q * keys), step(bias_b, bias_h * bias_q * keys));
        Ok(BiasSteps { some: BIAS, b, h, q })
    }

    fn check_tree(
        &self,
        kernel: &'static str,
        tree: &Tensor,
        [b, sq]: [usize; 2],
        kv_len: usize,
    ) -> Result<BiasSteps> {
        if !self.causal {
            return Err(Error::value(kernel, "tree", tree.shape(), "None without a causal mask"));
        }
        if self.bias.is_some() {
            return Err(Error::value(
                kernel,
                "tree",
                tree.shape(),
                "None with a bias, which can mask as well",
            ));
        }
        let words = sq.div_ceil(32);
        let of = if tree.shape().first() == Some(&1) { 1 } else { b };
        tree.expect(kernel, "tree", &[DType::U32], &[of, sq, words])?;
        if kv_len < sq {
            let want = format!("at least the {sq} nodes of the tree");
            return Err(Error::value(kernel, "number of keys", kv_len, want));
        }
        within_u32(&format!("{kernel}: tree"), tree.len() as u64)?;
        // Fits, as the whole does.
        let step = if of > 1 { sq * words } else { 0 };
        Ok(BiasSteps { some: TREE, b: step as u32, h: word(self.window, kv_len as u64), q: words as u32 })
    }

    /// The window as shaders have it, over at most `kv_len` keys: 0 for none. That of a tree is wide enough for any of
    /// its `sq` nodes, which may be no deeper than the first; what is too wide then is cut off node by node.
    pub(super) fn window_word(&self, sq: u32, kv_len: u32) -> u32 {
        let more = if self.tree.is_some() { sq as usize } else { 0 };
        word(self.window.map(|n| n.saturating_add(more)), u64::from(kv_len))
    }
}

/// A window over fewer keys than there are, or 0.
fn word(window: Option<usize>, kv_len: u64) -> u32 {
    window.and_then(|n| u32::try_from(n).ok()).filter(|&n| u64::from(n) < kv_len).unwrap_or(0)
}

//! What cases ask of [`Options`], with operands and checks.

use super::cpu::{self, Problem};
use super::{Options, merged_workspace_len, workspace_len};
use crate::device::Gpu;
use crate::error::Result;
use crate::kernel::{Check, Random, Rule};
use crate::tensor::{DType, Tensor};
use crate::tree::{Growth, Tree};

/// What a bias differs by; by the keys it always does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum BiasOf {
    /// Sequences, heads and queries, over a few more keys than there are.
    All,
    Heads,
    Queries,
}

/// What a case asks for beyond scale and causal mask.
#[derive(Clone, Copy, PartialEq, Default)]
pub(super) struct Extra {
    pub window: Option<usize>,
    pub soft_cap: Option<f32>,
    pub bias: Option<BiasOf>,
    /// Trees that grow with the random numbers are different for each sequence, others one for all.
    pub tree: Option<Growth>,
    pub sinks: bool,
    pub lse: bool,
    /// Width of values, 0 for that of keys.
    pub d_v: usize,
}

pub(super) const PLAIN: Extra =
    Extra { window: None, soft_cap: None, bias: None, tree: None, sinks: false, lse: false, d_v: 0 };

/// The same, with operands on the GPU.
pub(super) struct Extras {
    scale: f32,
    causal: bool,
    extra: Extra,
    bias: Option<Tensor>,
    tree: Option<Tensor>,
    sinks: Option<Tensor>,
    lse: Option<Tensor>,
}

impl Extra {
    pub fn label(self) -> String {
        let flag = |on: bool, name: &str| on.then(|| name.to_string());
        let parts = [
            self.window.map(|n| format!("window {n}")),
            self.soft_cap.map(|cap| format!("cap {cap}")),
            self.bias.map(|of| format!("bias of {of:?}").to_lowercase()),
            self.tree.map(|growth| format!("tree of {}", growth.label())),
            flag(self.sinks, "sinks"),
            flag(self.lse, "lse"),
            (self.d_v != 0).then(|| format!("values of {}", self.d_v)),
        ];
        parts.into_iter().flatten().map(|part| format!(", {part}")).collect()
    }

    /// Makes operands, and puts them into the problem.
    pub fn apply(self, gpu: &Gpu, p: &mut Problem, random: &mut Random) -> Result<Extras> {
        (p.window, p.soft_cap) = (self.window, self.soft_cap);
        let (b, keys) = (p.lens.len(), p.lens.iter().copied().max().unwrap_or(0));
        p.bias = self.bias.map(|of| {
            let shape = match of {
                BiasOf::All => [b, p.hq, p.sq, keys + 3],
                BiasOf::Heads => [1, p.hq, 1, keys],
                BiasOf::Queries => [1, 1, p.sq, keys],
            };
            (random.values(shape.iter().product(), DType::F32), shape)
        });
        p.tree = self.tree.map(|growth| {
            let trees = if matches!(growth, Growth::Depth(_)) { b } else { 1 };
            (0..trees).map(|_| growth.parents(p.sq, random)).collect()
        });
        p.sinks = self.sinks.then(|| random.values(p.hq, DType::F32));
        let bias = p.bias.as_ref().map(|(values, shape)| gpu.tensor(shape, values)).transpose()?;
        let tree = p.tree.as_ref().map(|trees| {
            let masks = trees.iter().map(|parents| Tree::new(parents).map(|tree| tree.mask()));
            gpu.tensor(&[trees.len(), p.sq, p.sq.div_ceil(32)], &masks.collect::<Result<Vec<_>>>()?.concat())
        });
        let tree = tree.transpose()?;
        let sinks = p.sinks.as_ref().map(|values| gpu.tensor(&[p.hq], values)).transpose()?;
        let lse = self.lse.then(|| gpu.output(DType::F32, &[b, p.sq, p.hq])).transpose()?;
        Ok(Extras { scale: p.scale, causal: p.causal, extra: self, bias, tree, sinks, lse })
    }

    /// Elements of workspace for [B, Sq, Hq, Hkv].
    pub fn workspace(self, gpu: &Gpu, [b, sq, hq, hkv]: [usize; 4], d_v: usize, longest: usize) -> usize {
        let len = if self.sinks || self.lse { merged_workspace_len } else { workspace_len };
        len(gpu, b, sq, hq, hkv, d_v, longest)
    }
}

impl Extras {
    pub fn options(&self) -> Options<'_> {
        Options {
            window: self.extra.window,
            soft_cap: self.extra.soft_cap,
            bias: self.bias.as_ref(),
            tree: self.tree.as_ref(),
            sinks: self.sinks.as_ref(),
            lse: self.lse.as_ref(),
            causal: self.causal,
            ..Options::full(self.scale)
        }
    }

    /// What must come out of these queries, keys and values.
    pub fn checks(&self, p: &Problem, q: Vec<f32>, k: Vec<f32>, v: Vec<f32>, out: &Tensor) -> Vec<Check> {
        let mut checks = self.lse_checks(p, &q, &k);
        let (p, rule, rows) = (p.clone(), Rule::stored_in(out.dtype()), p.compared());
        let at = rows.iter().flat_map(|row| row * p.d_v..(row + 1) * p.d_v).collect();
        let want = move || cpu::attention_rows(&q, &k, &v, &p, &rows);
        checks.push(Check::new("out", out, rule, want).at(at));
        checks
    }

    /// Of the sums, if they are asked for.
    pub fn lse_checks(&self, p: &Problem, q: &[f32], k: &[f32]) -> Vec<Check> {
        let Some(lse) = &self.lse else { return Vec::new() };
        // The −1e30 of rows that see nothing would hide errors of the others.
        let all = cpu::lse(q, k, p);
        let (seen, unseen): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(|&i| all[i] > -1e29);
        let of = |(name, at): (&'static str, Vec<usize>)| {
            let want: Vec<f64> = at.iter().map(|&i| all[i]).collect();
            Check::new(name, lse, Rule::stored_in(DType::F32), move || want.clone()).at(at)
        };
        [("lse", seen), ("lse of nothing", unseen)].map(of).into()
    }
}

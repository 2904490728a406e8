//! Generation with drafts: one pass over a tree of tokens that may come next keeps those that the model would have
//! chosen itself.

use std::io::Write;

use wgmarlin::argmax::{self, Argmax};
use wgmarlin::sample::Choice;
use wgmarlin::softmax::{self, Softmax};
use wgmarlin::tree::{self, Tree, TreeAccept, TreeMask, TreeSampled};
use wgmarlin::{DType, Gpu, Recorder, Tensor};

use crate::cache::Cache;
use crate::drafts::{Drafts, TreeSize};
use crate::error::{Error, Result};
use crate::model::{Activations, Model};
use crate::session::{Session, note, numbers};

/// How well the drafts did.
#[derive(Clone, Copy, Default)]
pub struct Acceptance {
    passes: usize,
    drafts: usize,
    accepted: usize,
}

impl Acceptance {
    pub fn write(&self, err: &mut impl Write) -> Result<()> {
        let Acceptance { passes, drafts, accepted } = *self;
        let each = (passes + accepted) as f64 / passes.max(1) as f64;
        writeln!(
            err,
            "drafts    {accepted} of {drafts} accepted, {each:.2} tokens per pass in {passes} passes"
        )?;
        Ok(())
    }
}

/// What a pass over a tree of up to `nodes` nodes reads and writes. All but the activations and logits are words in a
/// row.
struct Buffers {
    t: Activations,
    /// f32 \[nodes, vocab\]
    logits: Tensor,
    parents: Tensor,
    mask: Tensor,
    depths: Tensor,
    best: Tensor,
    path: Tensor,
    accepted: Tensor,
    next: Tensor,
}

impl Buffers {
    fn new(model: &Model, nodes: usize, context: usize) -> Result<Buffers> {
        let words = |n: usize| model.gpu.alloc(DType::U32, &[n]);
        Ok(Buffers {
            t: model.activations(nodes, context)?,
            logits: model.gpu.alloc(DType::F32, &[nodes, model.description.vocab])?,
            parents: words(nodes)?,
            mask: words(nodes * nodes.div_ceil(32))?,
            depths: words(nodes)?,
            best: words(nodes)?,
            path: words(nodes)?,
            accepted: words(1)?,
            next: words(1)?,
        })
    }

    /// For a tree of `nodes` nodes, in the same memory.
    fn first(&self, gpu: &Gpu, nodes: usize) -> wgmarlin::Result<Buffers> {
        let words = |tensor: &Tensor| tensor.rows_view(gpu, 0, nodes)?.reshape(&[1, nodes]);
        let of_a_row = nodes.div_ceil(32);
        let mask = self.mask.rows_view(gpu, 0, nodes * of_a_row)?.reshape(&[1, nodes, of_a_row])?;
        let mut t = self.t.first(gpu, nodes)?;
        t.tree = Some(mask.clone());
        Ok(Buffers {
            t,
            logits: self.logits.rows_view(gpu, 0, nodes)?,
            parents: words(&self.parents)?,
            mask,
            depths: words(&self.depths)?,
            best: words(&self.best)?,
            path: words(&self.path)?,
            accepted: self.accepted.clone(),
            next: self.next.clone(),
        })
    }

    /// Records what the model makes of every node.
    fn record_logits(
        &self,
        r: &mut Recorder<'_, '_>,
        model: &Model,
        cache: &Cache,
        past: usize,
    ) -> wgmarlin::Result<()> {
        let Buffers { t, logits, parents, mask, depths, .. } = self;
        tree::record_mask(r, &TreeMask { parents, mask, depths })?;
        model.forward(r, t, cache.keys(past))?;
        model.logits(r, t, logits)
    }

    /// Records which nodes it accepts, and that their rows stay in the cache. The logits become probabilities.
    fn record_choice(
        &self,
        r: &mut Recorder<'_, '_>,
        cache: &Cache,
        past: usize,
        choice: &Choice,
    ) -> wgmarlin::Result<()> {
        let Buffers { t, logits, parents, best, path, accepted, next, .. } = self;
        let (nodes, tokens) = (t.ids.len(), &t.ids.reshape(parents.shape())?);
        if choice.temperature == 0.0 {
            argmax::record(r, &Argmax { logits, index: &best.reshape(&[nodes])? })?;
            tree::record_accept(r, &TreeAccept { parents, tokens, best, path, accepted, next })?;
        } else {
            let (x, scale) = (logits, 1.0 / choice.temperature);
            softmax::record(r, &Softmax { x, out: x, scale })?;
            let target = &logits.reshape(&[1, nodes, logits.cols()])?;
            // The position numbers the draws, as without drafts.
            let (drafts, seed, step) = (None, choice.seed, past as u32);
            let request = TreeSampled { parents, tokens, target, drafts, seed, step, path, accepted, next };
            tree::record_sampled(r, &request)?;
        }
        cache.keep(r, path)
    }
}

impl Session<'_> {
    /// As [`Session::generate`], with drafts.
    pub fn speculate(
        &mut self,
        prompt: &[u32],
        max_new: usize,
        choice: &Choice,
        size: TreeSize,
        mut each: impl FnMut(u32) -> Result<bool>,
    ) -> Result<Acceptance> {
        let Some((_, before)) = prompt.split_last() else {
            return Err(Error::invalid("prompt", "has no tokens"));
        };
        self.room(prompt.len())?;
        let buffers = Buffers::new(self.model, size.nodes().min(self.cache.context), self.cache.context)?;
        self.feed(before)?;
        let mut text = prompt.to_vec();
        let mut acceptance = Acceptance::default();
        let most = max_new.min(self.cache.context - self.past);
        while text.len() - prompt.len() < most {
            let drafts = Drafts::look_back(&text, size, self.cache.context - self.past);
            let new = self.verify(&buffers, &drafts, choice, acceptance.passes == 0)?;
            acceptance.passes += 1;
            acceptance.drafts += drafts.tokens.len() - 1;
            acceptance.accepted += new.len() - 1;
            for id in new.into_iter().take(most - (text.len() - prompt.len())) {
                text.push(id);
                if !each(id)? {
                    return Ok(acceptance);
                }
            }
        }
        Ok(acceptance)
    }

    /// One pass over a tree: the drafts that were accepted, and the token that follows them. The first one is in two parts, between which
    /// the logits are looked at.
    fn verify(
        &mut self,
        buffers: &Buffers,
        drafts: &Drafts,
        choice: &Choice,
        first: bool,
    ) -> Result<Vec<u32>> {
        let Drafts { tokens, parents } = drafts;
        let (gpu, vocab, past) = (&self.model.gpu, self.model.description.vocab, self.past);
        let buffers = buffers.first(gpu, tokens.len())?;
        let depths = Tree::new(parents)?.depths();
        let positions: Vec<u32> = depths.iter().map(|depth| past as u32 + depth).collect();
        gpu.write(&buffers.t.ids, tokens)?;
        gpu.write(&buffers.t.positions, &positions)?;
        gpu.write(&buffers.parents, parents)?;
        self.cache.advance(past, tokens.len())?;
        let logits = |r: &mut Recorder<'_, '_>| buffers.record_logits(r, self.model, &self.cache, past);
        if first {
            gpu.run(|r| logits(r).map(|()| note(&mut self.used, r)))?;
            numbers(gpu, &buffers.logits)?;
        }
        gpu.run(|r| {
            if !first {
                logits(r)?;
            }
            buffers.record_choice(r, &self.cache, past, choice)?;
            note(&mut self.used, r);
            Ok(())
        })?;
        let path = gpu.read::<u32>(&buffers.path)?;
        let path: Vec<usize> =
            path.into_iter().map(|n| n as usize).take_while(|&n| n < tokens.len()).collect();
        self.past += path.len();
        let next = gpu.read::<u32>(&buffers.next)?;
        let new = path.into_iter().skip(1).map(|node| tokens[node]).chain(next);
        new.map(|id| crate::config::token("chosen token", id, vocab)).collect()
    }
}

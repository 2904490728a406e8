//! One sequence: prompt in chunks, then one compute pass per token.

use wgmarlin::argmax::{self, Argmax};
use wgmarlin::sample::{self, Choice, Sample};
use wgmarlin::{DType, Gpu, Readback, Recorder, Tensor, Tier};

use crate::cache::{Cache, Kv};
use crate::error::{Error, Result};
use crate::model::{Activations, Model};

/// Most tokens of a prompt that go through the model at once.
const CHUNK: usize = 256;
/// Most logits of a chunk, so that a large vocabulary does not need a large buffer.
const CHUNK_LOGITS: usize = 16 << 20;

/// The most probable token, always: a temperature of 0, which the sampling kernel itself does not take.
pub const GREEDY: Choice = Choice { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, step: 0 };

pub struct Session<'m> {
    pub model: &'m Model,
    pub cache: Cache,
    /// Tokens in the cache.
    pub past: usize,
    /// Every kernel launched so far and its tier.
    pub used: Vec<(&'static str, Tier)>,
    chunk: Activations,
    one: Activations,
    /// f32 \[1, vocab\]: in f16, probable tokens would often tie.
    logits: Tensor,
    readback: Readback,
}

impl<'m> Session<'m> {
    pub fn new(model: &'m Model, kv: Kv, context: usize) -> Result<Session<'m>> {
        let vocab = model.description.vocab;
        let chunk = CHUNK.min(context).min((CHUNK_LOGITS / vocab).max(1));
        Ok(Session {
            model,
            cache: model.cache(kv, context)?,
            past: 0,
            used: Vec::new(),
            chunk: model.activations(chunk, context)?,
            one: model.activations(1, context)?,
            logits: model.gpu.alloc(DType::F32, &[1, vocab])?,
            readback: Readback::new(&model.gpu, 4)?,
        })
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.past = 0;
    }

    /// Compiles what a prompt of this length and the steps after it will use.
    pub fn warm_up(&mut self, prompt: usize, choice: &Choice) -> Result<()> {
        let (gpu, chunk) = (&self.model.gpu, self.chunk.ids.len());
        let before_last = prompt.saturating_sub(1);
        for rows in [before_last.min(chunk), before_last % chunk] {
            if rows > 0 {
                let t = self.chunk.first(gpu, rows)?;
                self.cache.advance(0, rows)?;
                gpu.warm_up(|r| self.model.forward(r, &t, self.cache.keys(0)))?;
            }
        }
        self.cache.advance(before_last, 1)?;
        gpu.warm_up(|r| self.record_step(r, choice, before_last))?;
        Ok(())
    }

    /// Puts tokens into the cache.
    pub fn feed(&mut self, ids: &[u32]) -> Result<()> {
        for ids in ids.chunks(self.chunk.ids.len()) {
            self.feed_chunk(ids, None)?;
        }
        Ok(())
    }

    /// Puts tokens into the cache and hands out each one's logits, in pieces: the number of the first token of the
    /// piece, and its rows of `vocab` logits.
    pub fn feed_with_logits(&mut self, ids: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        let gpu = &self.model.gpu;
        let rows = self.chunk.ids.len().min(ids.len().max(1));
        let logits = gpu.alloc(DType::F32, &[rows, self.model.description.vocab])?;
        let mut first = 0;
        for ids in ids.chunks(rows) {
            let logits = logits.rows_view(gpu, 0, ids.len())?;
            self.feed_chunk(ids, Some(&logits))?;
            each(first, &gpu.read::<f32>(&logits)?);
            first += ids.len();
        }
        Ok(())
    }

    fn feed_chunk(&mut self, ids: &[u32], logits: Option<&Tensor>) -> Result<()> {
        self.room(ids.len())?;
        let gpu = &self.model.gpu;
        let t = self.chunk.first(gpu, ids.len())?;
        gpu.write(&t.ids, ids)?;
        let positions: Vec<u32> = (self.past..self.past + ids.len()).map(|p| p as u32).collect();
        gpu.write(&t.positions, &positions)?;
        self.cache.advance(self.past, ids.len())?;
        let used = &mut self.used;
        gpu.run(|r| {
            self.model.forward(r, &t, self.cache.keys(self.past))?;
            if let Some(logits) = logits {
                self.model.logits(r, &t, logits)?;
            }
            note(used, r);
            Ok(())
        })?;
        self.past += ids.len();
        Ok(())
    }

    /// Sets the token that the next [`Session::step`] starts from.
    pub fn start(&mut self, id: u32) -> Result<()> {
        Ok(self.model.gpu.write(&self.one.ids, &[id])?)
    }

    /// One decode step: one compute pass, one readback of four bytes. The chosen token also stays on the GPU,
    /// where the next step's embedding reads it.
    pub fn step(&mut self, choice: &Choice) -> Result<u32> {
        self.room(1)?;
        let gpu = &self.model.gpu;
        gpu.write(&self.one.positions, &[self.past as u32])?;
        self.cache.advance(self.past, 1)?;
        let device = gpu.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let recorded = {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let mut recorder = Recorder::new(gpu, &mut pass);
            let recorded = self.record_step(&mut recorder, choice, self.past);
            note(&mut self.used, &recorder);
            recorded
        };
        if recorded.is_ok() {
            self.readback.copy(&mut encoder, &self.one.ids, 4);
            gpu.queue().submit([encoder.finish()]);
        }
        let invalid = pollster::block_on(scope.pop());
        recorded?;
        if let Some(error) = invalid {
            return Err(wgmarlin::Error::Wgpu(error.to_string()).into());
        }
        let bytes = pollster::block_on(self.readback.fetch(gpu))?;
        self.past += 1;
        let id = bytes.first_chunk().map_or(u32::MAX, |&b| u32::from_le_bytes(b));
        crate::config::token("sampled token", id, self.model.description.vocab)
    }

    fn record_step(&self, r: &mut Recorder<'_, '_>, choice: &Choice, past: usize) -> wgmarlin::Result<()> {
        self.model.forward(r, &self.one, self.cache.keys(past))?;
        self.model.logits(r, &self.one, &self.logits)?;
        let (logits, index) = (&self.logits, &self.one.ids);
        if choice.temperature == 0.0 {
            return argmax::record(r, &Argmax { logits, index });
        }
        // The position numbers the draws, so that a run can be repeated from any point.
        let choice = Choice { step: past as u32, ..*choice };
        sample::record(r, &Sample { logits, index, choice })
    }

    /// Feeds the prompt, then generates up to `max_new` tokens or to the end of the context, each handed to `each`
    /// as soon as it is known; `each` says whether to go on.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        max_new: usize,
        choice: &Choice,
        mut each: impl FnMut(u32) -> Result<bool>,
    ) -> Result<()> {
        let Some((&last, before)) = prompt.split_last() else {
            return Err(Error::invalid("prompt", "has no tokens"));
        };
        self.room(prompt.len())?;
        self.feed(before)?;
        self.start(last)?;
        for n in 0..max_new.min(self.cache.context - self.past) {
            let id = self.step(choice)?;
            if n == 0 {
                numbers(&self.model.gpu, &self.logits)?;
            }
            if !each(id)? {
                break;
            }
        }
        Ok(())
    }

    /// Fails if so many more tokens do not fit.
    pub fn room(&self, tokens: usize) -> Result<()> {
        let context = self.cache.context;
        if tokens <= context.saturating_sub(self.past) {
            return Ok(());
        }
        let (past, what) = (self.past, "context");
        Err(Error::invalid(what, format!("{tokens} tokens after {past} do not fit in {context} positions")))
    }
}

/// Fails if what the first token is chosen of is no number: some token would be chosen, perhaps one that ends the text.
pub fn numbers(gpu: &Gpu, logits: &Tensor) -> Result<()> {
    if gpu.read::<f32>(logits)?.iter().any(|x| x.is_nan()) {
        let why = "are not numbers; the model's activations may pass what their type holds";
        return Err(Error::invalid("the model's logits", why));
    }
    Ok(())
}

/// Notes the kernels that a pass has launched.
pub fn note(used: &mut Vec<(&'static str, Tier)>, recorder: &Recorder<'_, '_>) {
    for pair in recorder.used() {
        if !used.contains(pair) {
            used.push(*pair);
        }
    }
}

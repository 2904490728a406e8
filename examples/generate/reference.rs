//! Proof against transformers: `--check` compares logits and greedy text, `--perplexity` measures how well the
//! model, as quantised, predicts held-out text. Both read `reference.safetensors` beside the model.

use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use wgmarlin::DType;
use wgmarlin::format::Format;

use crate::checkpoint::{Checkpoint, read_text};
use crate::config::token;
use crate::error::{Error, Result};
use crate::session::{GREEDY, Session};

/// `reference.safetensors`, computed in f32 from the same checkpoint.
pub struct Reference {
    tensors: Checkpoint,
    vocab: usize,
}

/// What `--check` compares with.
pub struct Expected {
    pub input: Vec<u32>,
    pub positions: Vec<usize>,
    pub logits: Vec<f32>,
    pub argmax: Vec<u32>,
    pub greedy_prompt: Vec<u32>,
    pub greedy: Vec<u32>,
}

/// What `--check` asks of a precision.
struct Thresholds {
    error: f64,
    argmax: f64,
    greedy: bool,
}

impl Reference {
    pub fn open(dir: &Path, vocab: usize) -> Result<Reference> {
        Ok(Reference { tensors: Checkpoint::open_file(&dir.join("reference.safetensors"))?, vocab })
    }

    pub fn expected(&self) -> Result<Expected> {
        let input = self.ids("input_ids")?.0;
        let (positions, _) = self.tensors.integers("logit_positions")?;
        let positions = positions
            .iter()
            .map(|&p| usize::try_from(p).ok().filter(|&p| p < input.len()))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| self.tensors.wrong("logit_positions", "a position past the end of input_ids"))?;
        let argmax = self.ids("argmax")?.0;
        if argmax.len() != input.len() || positions.is_empty() {
            let why = format!("{} for {} input_ids", argmax.len(), input.len());
            return Err(self.tensors.wrong("argmax", why));
        }
        let logits = self.tensors.floats("logits", &[positions.len(), self.vocab])?;
        let (greedy_prompt, greedy) = (self.ids("greedy_prompt")?.0, self.ids("greedy")?.0);
        Ok(Expected { input, positions, logits, argmax, greedy_prompt, greedy })
    }

    /// The windows \[count, length\] of `eval_ids`.
    pub fn windows(&self) -> Result<Vec<Vec<u32>>> {
        let (ids, shape) = self.ids("eval_ids")?;
        match shape[..] {
            [_, length] if length >= 2 => Ok(ids.chunks(length).map(<[u32]>::to_vec).collect()),
            _ => Err(self.tensors.wrong("eval_ids", format!("shape {shape:?}, needs [windows, length ≥ 2]"))),
        }
    }

    fn ids(&self, name: &str) -> Result<(Vec<u32>, Vec<usize>)> {
        let (ids, shape) = self.tensors.integers(name)?;
        let ids = ids.iter().map(|&id| token(name, id, self.vocab)).collect::<Result<Vec<_>>>()?;
        if ids.is_empty() {
            return Err(self.tensors.wrong(name, "empty"));
        }
        Ok((ids, shape))
    }
}

impl Expected {
    /// Positions that the check needs.
    pub fn context(&self) -> usize {
        self.input.len().max(self.greedy_prompt.len() + self.greedy.len())
    }

    /// Prints the comparison; whether it is within the thresholds.
    pub fn check(&self, session: &mut Session<'_>, out: &mut impl Write) -> Result<bool> {
        let vocab = session.model.description.vocab;
        let mut argmax = Vec::with_capacity(self.input.len());
        let (mut difference, mut norm) = (0.0f64, 0.0f64);
        session.reset();
        session.feed_with_logits(&self.input, |first, rows| {
            for (i, row) in rows.chunks(vocab).enumerate() {
                argmax.push(largest(row));
                let wanted = self.positions.iter().zip(self.logits.chunks(vocab));
                for (_, wanted) in wanted.filter(|(position, _)| **position == first + i) {
                    for (&got, &want) in row.iter().zip(wanted) {
                        difference += f64::from(got - want).powi(2);
                        norm += f64::from(want).powi(2);
                    }
                }
            }
        })?;
        let error = (difference / norm).sqrt();
        let agree = |a: &[u32], b: &[u32]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        let (same, of) = (agree(&argmax, &self.argmax), self.argmax.len());

        session.reset();
        let mut greedy = Vec::with_capacity(self.greedy.len());
        session.generate(&self.greedy_prompt, self.greedy.len(), &GREEDY, |id| {
            greedy.push(id);
            Ok(true)
        })?;
        let prefix = greedy.iter().zip(&self.greedy).take_while(|(a, b)| a == b).count();

        let thresholds = thresholds(session);
        let share = same as f64 / of as f64;
        let pass = thresholds.as_ref().is_none_or(|t| {
            error < t.error && share >= t.argmax && (!t.greedy || prefix == self.greedy.len())
        });
        let positions = self.positions.len();
        writeln!(out, "logits    relative error {error:.2e} over {positions} positions")?;
        writeln!(out, "argmax    {same} of {of} positions as in the reference ({:.1} %)", 100.0 * share)?;
        writeln!(out, "greedy    first {prefix} of {} tokens as in the reference", self.greedy.len())?;
        match thresholds {
            None => writeln!(out, "check     no thresholds for quantised weights; see --perplexity")?,
            Some(t) => {
                let greedy = if t.greedy { ", all greedy tokens" } else { "" };
                let verdict = if pass { "passed" } else { "FAILED" };
                let (limit, share) = (t.error, 100.0 * t.argmax);
                writeln!(out, "check     {verdict} (error < {limit:.0e}, argmax ≥ {share:.0} %{greedy})")?;
            }
        }
        Ok(pass)
    }
}

/// `None`: the figures are only printed.
fn thresholds(session: &Session<'_>) -> Option<Thresholds> {
    let precision = session.model.precision;
    match (precision.weights, precision.activations) {
        (Format::F32, DType::F32) => Some(Thresholds { error: 1e-4, argmax: 1.0, greedy: true }),
        (format, _) if !format.is_quantised() => {
            Some(Thresholds { error: 2e-2, argmax: 0.98, greedy: false })
        }
        _ => None,
    }
}

/// exp of the mean negative log-likelihood of each token given those before it in its window.
pub fn perplexity(
    session: &mut Session<'_>,
    windows: &[Vec<u32>],
    mut progress: impl FnMut(usize),
) -> Result<f64> {
    let vocab = session.model.description.vocab;
    let (mut sum, mut count) = (0.0f64, 0usize);
    for (number, window) in windows.iter().enumerate() {
        session.reset();
        let Some((_, context)) = window.split_last() else { continue };
        session.feed_with_logits(context, |first, rows| {
            let targets = &window[first + 1..];
            sum += rows
                .par_chunks(vocab)
                .zip(targets)
                .map(|(row, &target)| negative_log_likelihood(row, target as usize))
                .sum::<f64>();
            count += rows.len() / vocab;
        })?;
        progress(number + 1);
    }
    let perplexity = (sum / count as f64).exp();
    if perplexity.is_finite() {
        return Ok(perplexity);
    }
    Err(Error::invalid("perplexity", "the logits are not finite"))
}

/// The perplexity that `reference.json` states.
pub fn stated_perplexity(dir: &Path) -> Result<f64> {
    #[derive(serde::Deserialize)]
    struct Stated {
        perplexity: f64,
    }
    let path = dir.join("reference.json");
    let stated: Stated = serde_json::from_str(&read_text(&path)?).map_err(|e| Error::file(&path, e))?;
    Ok(stated.perplexity)
}

fn negative_log_likelihood(row: &[f32], target: usize) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
    let logit = row.get(target).copied().unwrap_or(f32::NAN);
    sum.ln() + f64::from(max) - f64::from(logit)
}

/// The first index of the largest value.
fn largest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best as u32
}

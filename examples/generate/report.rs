//! What the program says about itself: progress while it works, and speed, memory and kernels at the end. All of it
//! goes to standard error, so that standard output is the text alone.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Result;
use crate::session::Session;

/// Counts the tokens of one generation and the time they take.
pub struct Speed {
    start: Instant,
    first: Option<Duration>,
    tokens: usize,
}

impl Speed {
    pub fn start() -> Speed {
        Speed { start: Instant::now(), first: None, tokens: 0 }
    }

    /// One more new token.
    pub fn token(&mut self) {
        self.first.get_or_insert_with(|| self.start.elapsed());
        self.tokens += 1;
    }

    /// The first new token comes with the prompt; the others count as decoded.
    pub fn write(&self, prompt: usize, err: &mut impl Write) -> Result<()> {
        let total = self.start.elapsed();
        let first = self.first.unwrap_or(total);
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        let decoded = self.tokens.saturating_sub(1);
        writeln!(err, "\nprompt    {prompt} tokens, {:.1} tokens/s", rate(prompt, first))?;
        writeln!(err, "decode    {decoded} tokens, {:.1} tokens/s", rate(decoded, total - first))?;
        Ok(())
    }
}

/// Memory, adapter, and the kernels that ran at each tier.
pub fn write(session: &Session<'_>, err: &mut impl Write) -> Result<()> {
    let (model, mib) = (session.model, |bytes: u64| bytes as f64 / f64::from(1 << 20));
    let (weights, activations) = (model.precision.weights.name(), model.precision.activations.wgsl());
    let (caps, context) = (model.gpu.caps(), session.cache.context);
    writeln!(err, "weights   {:.2} MiB, {weights} with {activations} activations", mib(model.bytes))?;
    writeln!(
        err,
        "KV cache  {:.2} MiB for {context} positions{}",
        mib(session.cache.bytes()),
        session.cache.kind()
    )?;
    writeln!(err, "adapter   {} ({:?})", caps.adapter, caps.backend)?;
    let mut tiers: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (kernel, tier) in &session.used {
        tiers.entry(*tier).or_default().push(kernel);
    }
    for (tier, kernels) in tiers {
        writeln!(err, "tier      {}: {}", tier.name(), kernels.join(", "))?;
    }
    Ok(())
}

/// A bar on a terminal, nothing otherwise.
pub fn progress(what: &'static str, len: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(len as u64);
    match ProgressStyle::with_template("{prefix} {pos}/{len} {bar:30}") {
        Ok(style) => bar.with_style(style).with_prefix(what),
        Err(_) => bar,
    }
}

//! A real model end to end: loads a Hugging Face directory, quantises its weights, and generates text on any GPU
//! that wgpu reaches, one compute pass per token.
//!
//! ```sh
//! cargo run --release --example generate -- --model tests/fixtures/llama --weights fp4 --prompt "The Rust"
//! ```

mod args;
mod cache;
mod checkpoint;
mod config;
mod drafts;
mod error;
mod model;
mod reference;
mod report;
mod session;
mod speculative;
mod text;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use wgmarlin::Gpu;

use args::Args;
use cache::Kv;
use checkpoint::{Checkpoint, read_text};
use config::Description;
use error::{Error, Result};
use model::{Model, Precision};
use reference::Reference;
use report::Speed;
use session::Session;
use text::{Stream, Text};

fn main() -> ExitCode {
    // Only what wgpu reports as an error, unless RUST_LOG says otherwise. A second logger is no reason to stop.
    let _ = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).try_init();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            // Help and version come this way too, with exit status 0. Nothing is left to do if printing fails.
            let _ = e.print();
            return ExitCode::from(u8::from(e.exit_code() != 0));
        }
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was asked for is as it should be.
fn run(args: &Args) -> Result<bool> {
    let path = args.model.join("config.json");
    let description = Description::parse(&read_text(&path)?).map_err(|e| Error::file(&path, e))?;
    let checkpoint = Checkpoint::open_dir(&args.model)?;

    // What the request needs of the context is known before anything is uploaded.
    let vocab = description.vocab;
    let reference =
        (args.check || args.perplexity).then(|| Reference::open(&args.model, vocab)).transpose()?;
    let expected = reference.as_ref().filter(|_| args.check).map(Reference::expected).transpose()?;
    let windows =
        reference.as_ref().filter(|_| args.perplexity).map(|r| windows(r, args.windows)).transpose()?;
    let prompt = args.prompt.as_ref().map(|prompt| Prompt::new(args, prompt, vocab)).transpose()?;
    let needs = [
        expected.as_ref().map_or(0, |e| e.context()),
        windows.as_ref().and_then(|(w, _)| w.first()).map_or(0, Vec::len),
    ];
    let context = context(args, &description, needs.into_iter().max().unwrap_or(0), prompt.as_ref())?;

    let gpu = match &args.adapter {
        None => Gpu::new()?,
        Some(name) => Gpu::builder().name(name).open()?,
    };
    let activations = args.activations.unwrap_or_else(|| model::default_activations(&gpu, args.weights));
    model::check_activations(&gpu, activations)?;
    let group = args.group.unwrap_or(args.weights.default_group());
    let precision = Precision { weights: args.weights, group, search: args.search(), activations };
    let bar = report::progress("loading layer", description.layers);
    let model = Model::load(&gpu, description, &checkpoint, precision, |n| bar.set_position(n as u64))?;
    bar.finish_and_clear();

    // Rows of accepted drafts are brought together in blocks only.
    let format = args.kv.or(args.speculative.map(|_| Kv::own(activations)));
    let mut session = Session::new(&model, Kv { format, block: args.paged }, context)?;
    let mut out = std::io::stdout().lock();
    let mut good = true;
    if let Some(prompt) = &prompt {
        prompt.generate(args, &mut session, &mut out)?;
    }
    if let Some(expected) = &expected {
        good &= expected.check(&mut session, &mut out)?;
    }
    if let Some((windows, all)) = &windows {
        let bar = report::progress("window", windows.len());
        let value = reference::perplexity(&mut session, windows, |n| bar.set_position(n as u64))?;
        bar.finish_and_clear();
        let (used, total) = (windows.len(), all);
        write!(out, "perplexity {value:.4} over {used} of {total} windows of {} tokens", windows[0].len())?;
        if used == *total {
            let stated = reference::stated_perplexity(&args.model)?;
            let percent = 100.0 * (value / stated - 1.0);
            write!(out, "; reference {stated:.4} ({percent:+.3} %)")?;
        }
        writeln!(out)?;
    }
    report::write(&session, &mut std::io::stderr())?;
    Ok(good)
}

/// The first `limit` windows of `eval_ids`, and how many there are.
fn windows(reference: &Reference, limit: Option<u32>) -> Result<(Vec<Vec<u32>>, usize)> {
    let mut windows = reference.windows()?;
    let all = windows.len();
    if let Some(limit) = limit.map(|n| n as usize) {
        if limit > all {
            return Err(Error::invalid("--windows", format!("{limit}, but eval_ids has {all}")));
        }
        windows.truncate(limit);
    }
    Ok((windows, all))
}

/// The length of the KV cache: what the user says, or what is needed, never more than the model knows.
fn context(args: &Args, model: &Description, needed: usize, prompt: Option<&Prompt>) -> Result<usize> {
    let max_new = args.max_new as usize;
    let limit = args.context.map_or(model.context, |c| c as usize);
    if limit > model.context {
        let why = format!("{limit}, but the model has {} positions", model.context);
        return Err(Error::invalid("--context", why));
    }
    if needed > limit {
        let why = format!("the reference needs {needed} positions, the context has {limit}");
        return Err(Error::invalid("--context", why));
    }
    let prompt = prompt.map_or(0, |p| p.ids.len());
    if prompt > limit {
        let why = format!("{prompt} tokens are longer than the context of {limit} positions");
        return Err(Error::invalid("prompt", why));
    }
    let wanted = if prompt == 0 { needed } else { needed.max(prompt.saturating_add(max_new)) };
    Ok(if args.context.is_some() { limit } else { wanted.next_multiple_of(64).min(limit) })
}

struct Prompt {
    ids: Vec<u32>,
    shown: String,
    text: Text,
}

impl Prompt {
    fn new(args: &Args, prompt: &str, vocab: usize) -> Result<Prompt> {
        if args.speculative.is_some() && (args.top_k != 0 || args.top_p != 1.0) {
            return Err(Error::invalid("--speculative", "samples without --top-k and --top-p only"));
        }
        let text = Text::open(&args.model)?;
        let ids = text.encode(prompt, true, vocab)?;
        Ok(Prompt { ids, shown: prompt.to_string(), text })
    }

    /// Prints the prompt, then its continuation as it comes, then the speed.
    fn generate(&self, args: &Args, session: &mut Session<'_>, out: &mut impl Write) -> Result<()> {
        let choice = args.choice();
        session.warm_up(self.ids.len(), &choice)?;
        write!(out, "{}", self.shown)?;
        out.flush()?;
        let mut stream = Stream::new(&self.text, &self.ids);
        let eos = session.model.description.eos.clone();
        let mut speed = Speed::start();
        let each = |id: u32| {
            speed.token();
            if eos.contains(&id) {
                return Ok(false);
            }
            write!(out, "{}", stream.push(id)?)?;
            out.flush()?;
            Ok(true)
        };
        let max_new = args.max_new as usize;
        let acceptance = match args.speculative {
            None => session.generate(&self.ids, max_new, &choice, each).map(|()| None)?,
            Some(size) => Some(session.speculate(&self.ids, max_new, &choice, size, each)?),
        };
        writeln!(out, "{}", stream.finish()?)?;
        out.flush()?;
        let err = &mut std::io::stderr();
        speed.write(self.ids.len(), err)?;
        acceptance.map_or(Ok(()), |acceptance| acceptance.write(err))
    }
}

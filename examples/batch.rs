//! Many sequences at once, of different lengths, from one pool of cache blocks: every step is one forward pass with one token
//! of each sequence that still runs. Their prompts begin alike, and that beginning is in the cache once.
//!
//! ```sh
//! cargo run --release --example batch -- --model tests/fixtures/llama --check
//! ```
//!
//! The model is that of the `generate` example, whose modules this one shares.

#[path = "generate/cache.rs"]
#[allow(dead_code)]
mod cache;
#[path = "generate/checkpoint.rs"]
#[allow(dead_code)]
mod checkpoint;
#[path = "generate/config.rs"]
#[allow(dead_code)]
mod config;
#[path = "generate/error.rs"]
#[allow(dead_code)]
mod error;
#[path = "generate/model.rs"]
#[allow(dead_code)]
mod model;
#[path = "generate/session.rs"]
#[allow(dead_code)]
mod session;
#[path = "generate/text.rs"]
#[allow(dead_code)]
mod text;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use wgmarlin::argmax::{self, Argmax};
use wgmarlin::format::{Format, ScaleSearch};
use wgmarlin::kv::{CacheShape, KvCache, KvFormat, KvShape, Sequence};
use wgmarlin::{DType, Gpu};

use cache::{Keys, Kv};
use checkpoint::{Checkpoint, read_text};
use config::Description;
use error::{Error, Result};
use model::{Model, Precision};
use session::{GREEDY, Session};
use text::Text;

/// Decodes many sequences at once from one pool of cache blocks.
#[derive(Parser)]
#[command(name = "batch")]
struct Args {
    /// Directory of the model, as for `generate`
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Number of sequences
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    sequences: u32,
    /// Most new tokens of a sequence; they stop at different times, from half of it on
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=1 << 16))]
    max_new: u32,
    /// Tokens of a block
    #[arg(long, default_value_t = 16, value_parser = block)]
    block: usize,
    /// Run each sequence alone, too; exit status 1 if one has other tokens then
    #[arg(long)]
    check: bool,
}

fn block(text: &str) -> Result<usize, String> {
    let good = |n: &usize| (8..=256).contains(n) && n.is_multiple_of(8);
    text.parse().ok().filter(good).ok_or_else(|| "needs a multiple of 8 from 8 to 256".into())
}

/// What all prompts begin with.
const BEGINNING: &str =
    "Rust has a strong type system. The compiler checks every borrow, and a value has one owner. ";
/// The prompts go on with one of these
const OPENINGS: [&str; 8] = [
    "A",
    "The",
    "This is how a",
    "If you have a",
    "In the standard library, a",
    "Note that the",
    "You can use a",
    "What is a",
];
/// and one of these.
const SUBJECTS: [&str; 8] = [
    "vector",
    "string slice",
    "trait object",
    "closure",
    "pattern in a match expression",
    "lifetime parameter of a function",
    "thread",
    "iterator adaptor",
];

/// A sequence before, in and after its run.
struct Run {
    /// Behind the common beginning; at least one token.
    prompt: Vec<u32>,
    /// Most new tokens.
    limit: usize,
    /// In the cache, while it runs.
    sequence: Option<Sequence>,
    /// Tokens of the prompt that are in the cache.
    fed: usize,
    new: Vec<u32>,
}

impl Run {
    /// The token that goes through the model next: of the prompt, or the one that was chosen last.
    fn input(&self) -> u32 {
        self.prompt.get(self.fed).or(self.new.last()).copied().unwrap_or_default()
    }

    /// Takes what the model gives for that token; whether the sequence goes on.
    fn take(&mut self, chosen: u32, eos: &[u32]) -> bool {
        self.fed = (self.fed + 1).min(self.prompt.len());
        if self.fed < self.prompt.len() {
            return true;
        }
        self.new.push(chosen);
        self.new.len() < self.limit && !eos.contains(&chosen)
    }
}

fn main() -> ExitCode {
    let _ = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).try_init();
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all tokens are as they should be.
fn run(args: &Args) -> Result<bool> {
    let path = args.model.join("config.json");
    let description = Description::parse(&read_text(&path)?).map_err(|e| Error::file(&path, e))?;
    let text = Text::open(&args.model)?;
    let beginning = text.encode(BEGINNING, true, description.vocab)?;
    let mut runs = (0..args.sequences as usize)
        .map(|n| {
            let (opening, subject) = (OPENINGS[n % 8], SUBJECTS[n / 8 % 8]);
            let prompt = text.encode(&format!("{opening} {subject}"), false, description.vocab)?;
            let (most, spread) = (args.max_new as usize, n * 7 % (args.max_new as usize / 2 + 1));
            Ok(Run { prompt, limit: most - spread, sequence: None, fed: 0, new: Vec::new() })
        })
        .collect::<Result<Vec<_>>>()?;
    let length = |run: &Run| beginning.len() + run.prompt.len() + run.limit;
    let context = runs.iter().map(length).max().unwrap_or(0);
    if context > description.context {
        let why =
            format!("sequences of {context} tokens, but the model has {} positions", description.context);
        return Err(Error::invalid("--max-new", why));
    }

    let gpu = Gpu::new()?;
    let checkpoint = Checkpoint::open_dir(&args.model)?;
    // In f32 sums in another order turn one choice into another only where two logits agree to six digits or so; f16 has
    // three, with which such ties are common.
    let precision = Precision {
        weights: Format::F32,
        group: Format::F32.default_group(),
        search: ScaleSearch::AbsMax,
        activations: DType::F32,
    };
    let model = Model::load(&gpu, description, &checkpoint, precision, |_| ())?;

    // Whole blocks of the beginning are common to all; what is behind them is each sequence's own.
    let common = beginning.len() / args.block;
    let own: usize = runs.iter().map(|run| length(run).div_ceil(args.block) - common).sum();
    let [kv_heads, d, d_v] = model.description.kv_shape();
    let pool = KvShape { blocks: common + 1 + own, kv_heads, block: args.block, d, d_v };
    let tokens = runs.len().max(beginning.len());
    let shape = CacheShape { layers: model.description.layers, pool, context, sequences: runs.len(), tokens };
    let mut cache = KvCache::new(&gpu, KvFormat::F32, shape)?;

    let start = Instant::now();
    let steps = decode(&model, &mut cache, &beginning, &mut runs)?;
    let seconds = start.elapsed().as_secs_f64();

    let out = &mut std::io::stdout().lock();
    for (n, run) in runs.iter().enumerate() {
        writeln!(out, "{n:>4} {:?}", text.decode(&[&run.prompt[..], &run.new].concat())?)?;
    }
    let new: usize = runs.iter().map(|run| run.new.len()).sum();
    let (count, block, mib) = (runs.len(), args.block, cache.bytes() as f64 / f64::from(1 << 20));
    writeln!(
        out,
        "{new} new tokens of {count} sequences in {steps} steps, {:.1} tokens/s",
        new as f64 / seconds
    )?;
    let alone: usize = runs.iter().map(|run| length(run).div_ceil(block)).sum();
    writeln!(out, "{} blocks of {block} tokens ({mib:.1} MiB), {alone} without sharing", pool.blocks)?;
    if !args.check {
        return Ok(true);
    }
    let mut same = 0;
    for (n, run) in runs.iter().enumerate() {
        let lone = lone(&model, context, &[&beginning[..], &run.prompt].concat(), run.limit)?;
        if lone == run.new {
            same += 1;
        } else {
            writeln!(out, "{n:>4} alone: {:?}", text.decode(&lone)?)?;
        }
    }
    writeln!(out, "{same} of {count} sequences have the tokens of their lone runs")?;
    Ok(same == count)
}

/// Runs all sequences to their ends; the number of steps.
fn decode(model: &Model, cache: &mut KvCache, beginning: &[u32], runs: &mut [Run]) -> Result<usize> {
    let gpu = &model.gpu;
    let all = model.activations(cache.shape().tokens, cache.shape().context)?;
    let logits = gpu.alloc(DType::F32, &[runs.len(), model.description.vocab])?;

    let root = cache.add();
    let step = cache.step(&[(root, beginning.len())])?;
    let mut t = all.first(gpu, beginning.len())?;
    t.positions = step.positions.clone();
    gpu.write(&t.ids, beginning)?;
    gpu.run(|r| model.forward(r, &t, Keys::Blocks { cache, step: &step }))?;
    for run in runs.iter_mut() {
        run.sequence = Some(cache.fork(root, beginning.len())?);
    }
    cache.free(root)?;

    let mut steps = 0;
    loop {
        let mut running: Vec<(&mut Run, Sequence)> =
            runs.iter_mut().filter_map(|run| run.sequence.map(|sequence| (run, sequence))).collect();
        let count = running.len();
        if count == 0 {
            return Ok(steps);
        }
        let step = cache.step(&running.iter().map(|(_, sequence)| (*sequence, 1)).collect::<Vec<_>>())?;
        let mut t = all.first(gpu, count)?;
        t.positions = step.positions.clone();
        gpu.write(&t.ids, &running.iter().map(|(run, _)| run.input()).collect::<Vec<_>>())?;
        let logits = logits.rows_view(gpu, 0, count)?;
        gpu.run(|r| {
            model.forward(r, &t, Keys::Blocks { cache, step: &step })?;
            model.logits(r, &t, &logits)?;
            argmax::record(r, &Argmax { logits: &logits, index: &t.ids })
        })?;
        for ((run, sequence), chosen) in running.iter_mut().zip(gpu.read::<u32>(&t.ids)?) {
            if !run.take(chosen, &model.description.eos) {
                run.sequence = None;
                cache.free(*sequence)?;
            }
        }
        steps += 1;
    }
}

/// The new tokens of one sequence by itself, in a cache of its own.
fn lone(model: &Model, context: usize, prompt: &[u32], limit: usize) -> Result<Vec<u32>> {
    let mut session = Session::new(model, Kv::default(), context)?;
    let mut new = Vec::new();
    session.generate(prompt, limit, &GREEDY, |id| {
        new.push(id);
        Ok(!model.description.eos.contains(&id))
    })?;
    Ok(new)
}

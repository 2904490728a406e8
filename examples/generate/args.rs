//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, ValueEnum};
use wgmarlin::DType;
use wgmarlin::format::{Format, Group, ScaleSearch};
use wgmarlin::kv::KvFormat;
use wgmarlin::sample::Choice;

use crate::drafts::TreeSize;

/// Runs a small Hugging Face model on any GPU with wgmarlin's kernels.
#[derive(Parser, Debug)]
#[command(name = "generate")]
pub struct Args {
    /// Directory with config.json, model.safetensors (or shards with their index) and tokenizer.json (here or one above)
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue
    #[arg(long, required_unless_present_any = ["check", "perplexity"])]
    pub prompt: Option<String>,
    /// Format of the projection matrices; embeddings and norms are never quantised
    #[arg(long, default_value = "f16", value_parser = formats())]
    pub weights: Format,
    /// Type of the activations [default: f16 where the adapter has it and the weights are not f32]
    #[arg(long, value_parser = activations)]
    pub activations: Option<DType>,
    /// Weights that share a scale: 16, 32, 64, 128 or row [default: 32; nvfp4: 16]
    #[arg(long, value_parser = group)]
    pub group: Option<Group>,
    /// How scales are chosen
    #[arg(long, default_value = "mse")]
    pub scale: Scale,
    /// Most tokens to generate
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub max_new: u32,
    /// 0 takes the most probable token; higher is more random
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f32,
    /// Sample among the K most probable tokens only; 0: all
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Sample among the most probable tokens whose probabilities sum to P
    #[arg(long, default_value_t = 1.0, value_parser = top_p)]
    pub top_p: f32,
    /// Same seed, same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Positions of the KV cache [default: as many as needed, up to the model's own limit]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// Format of the KV cache: f32, f16, bf16, fp8, int8, int4 or fp4 [default: plain tensors of the activations' type]
    #[arg(long, value_parser = kv)]
    pub kv: Option<KvFormat>,
    /// Keep the KV cache in blocks of so many positions, a multiple of 8 up to 256
    #[arg(long, value_name = "BLOCK", value_parser = block)]
    pub paged: Option<usize>,
    /// Check drafts in trees of WIDTH branches and DEPTH levels, such as 4x8, several tokens in one pass
    #[arg(long, value_name = "WIDTHxDEPTH", value_parser = TreeSize::parse, requires = "prompt")]
    pub speculative: Option<TreeSize>,
    /// Compare with reference.safetensors; exit status 1 if outside the thresholds
    #[arg(long)]
    pub check: bool,
    /// Measure the perplexity over eval_ids of reference.safetensors
    #[arg(long)]
    pub perplexity: bool,
    /// Use only the first N windows of eval_ids
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub windows: Option<u32>,
    /// Part of the adapter's name
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Scale {
    /// The largest weight of a group maps to the largest code
    Absmax,
    /// The least squared error
    Mse,
}

impl Args {
    pub fn search(&self) -> ScaleSearch {
        match self.scale {
            Scale::Absmax => ScaleSearch::AbsMax,
            Scale::Mse => ScaleSearch::Mse,
        }
    }

    /// Temperature 0 means greedy.
    pub fn choice(&self) -> Choice {
        let Args { temperature, top_k, top_p, seed, .. } = *self;
        Choice { temperature, top_k, top_p, seed, step: 0 }
    }
}

fn formats() -> impl TypedValueParser<Value = Format> {
    let names = PossibleValuesParser::new(Format::ALL.iter().map(|format| format.name()));
    names.try_map(|name| Format::parse(&name).ok_or("is no format"))
}

fn kv(text: &str) -> Result<KvFormat, String> {
    let name = if text == "fp8" { KvFormat::E4m3.name() } else { text };
    KvFormat::parse(name).ok_or_else(|| "needs f32, f16, bf16, fp8, int8, int4 or fp4".into())
}

fn block(text: &str) -> Result<usize, String> {
    let good = |n: &usize| (8..=256).contains(n) && n.is_multiple_of(8);
    text.parse().ok().filter(good).ok_or_else(|| "needs a multiple of 8 from 8 to 256".into())
}

fn activations(text: &str) -> Result<DType, String> {
    [DType::F32, DType::F16].into_iter().find(|d| d.wgsl() == text).ok_or_else(|| "needs f32 or f16".into())
}

fn group(text: &str) -> Result<Group, String> {
    match text {
        "row" => Ok(Group::WholeK),
        "16" | "32" | "64" | "128" => text.parse().map(Group::Size).map_err(|e| format!("{e}")),
        _ => Err("needs 16, 32, 64, 128 or row".into()),
    }
}

fn number(text: &str, good: impl Fn(f32) -> bool, want: &str) -> Result<f32, String> {
    text.parse().ok().filter(|&v| good(v)).ok_or_else(|| format!("needs {want}"))
}

fn temperature(text: &str) -> Result<f32, String> {
    number(text, |v| v == 0.0 || (1e-3..=100.0).contains(&v), "0, or 0.001 to 100")
}

fn top_p(text: &str) -> Result<f32, String> {
    number(text, |v| v > 0.0 && v <= 1.0, "a number above 0, at most 1")
}

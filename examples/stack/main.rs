//! How long the matrix products of one token take: all layers of a Llama-shaped model with random weights, launches
//! included, attention left out. `cargo run --release --example stack`; the defaults are Llama 3's 8 billion parameters.

#[path = "../audit/measured.rs"]
mod measured;
#[path = "../audit/peers.rs"]
mod peers;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use half::f16;
use wgmarlin::audit::{Finished, Perf, Rows, Timing, Verdict, copy_bandwidth, measure, significant};
use wgmarlin::format::{Format, Group};
use wgmarlin::kernel::Cost;
use wgmarlin::matmul::{self, Activation, Linear, Mlp, Norm, Qkv, Weight, Workspace};
use wgmarlin::{DType, Gpu, Recorder, Tensor, quantize};

#[derive(Parser)]
#[command(name = "stack")]
struct Cli {
    #[arg(long, default_value_t = 32)]
    layers: usize,
    /// Width of the residual stream and of the queries.
    #[arg(long, default_value_t = 4096)]
    hidden: usize,
    /// Width of the gated MLP.
    #[arg(long, default_value_t = 14336)]
    ffn: usize,
    /// Width of the keys, and of the values.
    #[arg(long, default_value_t = 1024)]
    kv: usize,
    #[arg(long, default_value_t = 128_256)]
    vocab: usize,
    /// Of the weights: fp4, int4, int8, e4m3 or e5m2, which the GPU quantises.
    #[arg(long, default_value = "fp4", value_parser = format)]
    format: Format,
    #[arg(long, default_value_t = 32)]
    group: usize,
    /// Add the result to `performance` in this file, which `audit --perf --json` wrote.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn format(name: &str) -> Result<Format, String> {
    let known = quantize::FORMATS;
    let names = || known.map(Format::name).join(", ");
    known.into_iter().find(|f| f.name() == name).ok_or_else(|| format!("one of {}", names()))
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let gpu = Gpu::new()?;
    let stack = Stack::new(&gpu, cli)?;
    let pass = |recorder: &mut Recorder<'_, '_>| stack.record(recorder);
    gpu.warm_up(pass)?;
    gpu.run(pass)?;
    let logits = gpu.read::<f32>(&stack.logits)?;
    let largest = logits.iter().copied().map(f32::abs).fold(0.0, f32::max);
    if !logits.iter().all(|x| x.is_finite()) || largest == 0.0 {
        return Err("the logits are not finite, or all 0".into());
    }
    let copy = copy_bandwidth(&gpu)?;
    let (seconds, timestamps, launches) = measure(&gpu, 1, &|pass, count| {
        let mut recorder = Recorder::new(&gpu, pass);
        (0..count).try_for_each(|_| stack.record(&mut recorder))
    })?;
    let (bytes, flops) = (stack.bytes(), 2 * stack.parameters());
    let timing = Timing { seconds, timestamps, launches, cost: Cost { bytes, flops } };
    let label = format!(
        "{} layers of {}, {}, {} and {} rows of {} g{}",
        cli.layers,
        cli.hidden,
        cli.ffn,
        cli.kv,
        cli.vocab,
        cli.format.name(),
        cli.group
    );
    let perf = Perf::new(&label, &timing, Some(copy));
    println!("{}: {label}", gpu.caps().adapter);
    println!(
        "{} million parameters, {:.3} GB: {} µs a token by {}, {:.0} GB/s, {:.0} % of copy",
        significant(stack.parameters() as f64 / 1e6),
        bytes as f64 / 1e9,
        significant(perf.micros),
        perf.clock,
        perf.gb_s,
        perf.copy_percent.unwrap_or(0.0)
    );
    let dtype = stack.dtype.wgsl();
    let peers = peers::Peers::read()?;
    let mut rows = Rows::new(&[]);
    let (kernel, tier, dtype) = ("stack".to_string(), "all".to_string(), dtype.to_string());
    let known = peers.know(&kernel, &dtype, &label);
    let (verdict, loaded, perf) = (Verdict::Unreached, Vec::new(), Some(perf));
    rows.add(Finished { item: 0, kernel, tier, dtype, case: label, verdict, loaded, perf });
    let measured = peers.compare(&rows.finish());
    let must = measured.first().and_then(|m| m.must.as_ref());
    match must {
        Some(must) => println!("{} µs must be reached: {}", must.us, if must.met { "met" } else { "missed" }),
        None if known => println!("the target of this shape could not be compared"),
        None => println!("no target for this shape"),
    }
    if let Some(path) = &cli.json {
        add(path, &measured)?;
    }
    Ok(())
}

/// Puts the timing into an audit's JSON, in place of an earlier one of the same case.
fn add(path: &Path, measured: &[measured::Measured]) -> Result<(), Failure> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| at(&e))?;
    let mut report: serde_json::Value = serde_json::from_str(&text).map_err(|e| at(&e))?;
    let all = report
        .get_mut("performance")
        .and_then(|all| all.as_array_mut())
        .ok_or_else(|| at(&"not an audit's JSON"))?;
    for one in measured {
        all.retain(|other| other["kernel"] != *one.kernel || other["case"] != *one.case);
        all.push(serde_json::to_value(one)?);
    }
    std::fs::write(path, serde_json::to_vec_pretty(&report)?).map_err(|e| at(&e))?;
    Ok(())
}

struct Layer {
    qkv: Weight,
    o: Weight,
    gate_up: Weight,
    down: Weight,
}

/// Weights, each in a buffer of its own, and activations of one token.
struct Stack {
    dtype: DType,
    layers: Vec<Layer>,
    head: Weight,
    gains: Tensor,
    x: Tensor,
    y: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    workspace: Workspace,
    logits: Tensor,
}

impl Stack {
    fn new(gpu: &Gpu, cli: &Cli) -> Result<Stack, Failure> {
        let &Cli { layers, hidden, ffn, kv, vocab, .. } = cli;
        let dtype = if gpu.caps().f16 { DType::F16 } else { DType::F32 };
        let mut random = Random { gpu, cli, dense: HashMap::new() };
        let layer = |random: &mut Random<'_>| -> Result<Layer, Failure> {
            Ok(Layer {
                qkv: random.weight(hidden + 2 * kv, hidden)?,
                o: random.weight(hidden, hidden)?,
                gate_up: random.weight(2 * ffn, hidden)?,
                down: random.weight(hidden, ffn)?,
            })
        };
        let layers = (0..layers).map(|_| layer(&mut random)).collect::<Result<Vec<_>, _>>()?;
        let head = random.weight(vocab, hidden)?;
        let Some(first) = layers.first() else { return Err("--layers must be at least 1".into()) };
        let alloc = |n: usize| gpu.alloc(dtype, &[1, n]);
        let workspace = Workspace::mlp(gpu, dtype, 1, &first.gate_up)?;
        let ones = |shape: &[usize]| match dtype {
            DType::F16 => gpu.tensor(shape, &vec![f16::ONE; hidden]),
            _ => gpu.tensor(shape, &vec![1f32; hidden]),
        };
        let (gains, x, y, q) = (ones(&[hidden])?, ones(&[1, hidden])?, alloc(hidden)?, alloc(hidden)?);
        let (k, v, logits) = (alloc(kv)?, alloc(kv)?, gpu.alloc(DType::F32, &[1, vocab])?);
        Ok(Stack { dtype, layers, head, gains, x, y, q, k, v, workspace, logits })
    }

    fn record(&self, recorder: &mut Recorder<'_, '_>) -> wgmarlin::Result<()> {
        let Stack { x, y, q, k, v, gains, workspace, .. } = self;
        let norm = Some(Norm { weight: gains, eps: 1e-5, workspace: None });
        for Layer { qkv, o, gate_up, down } in &self.layers {
            let attend = Qkv { a: x, weight: qkv, q, k, v, kv_row: 0, bias: None, norm };
            matmul::record_qkv(recorder, &attend)?;
            // The queries stand for what attention would make of them.
            matmul::record(recorder, &Linear { residual: Some(x), ..Linear::new(q, o, y) })?;
            let (activation, residual) = (Activation::Silu, Some(y));
            let mlp = Mlp { x: y, gate_up, down, out: x, activation, norm, residual, workspace };
            matmul::record_mlp(recorder, &mlp)?;
        }
        matmul::record(recorder, &Linear { norm, ..Linear::new(x, &self.head, &self.logits) })
    }

    fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.layers.iter().flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down]).chain([&self.head])
    }

    fn parameters(&self) -> u64 {
        self.weights().map(|w| (w.n() * w.k()) as u64).sum()
    }

    fn bytes(&self) -> u64 {
        self.weights().map(Weight::bytes).sum()
    }
}

/// Makes weights: random values of one shape are uploaded once, and quantised into each weight by the GPU.
struct Random<'a> {
    gpu: &'a Gpu,
    cli: &'a Cli,
    dense: HashMap<(usize, usize), Weight>,
}

impl Random<'_> {
    fn weight(&mut self, n: usize, k: usize) -> Result<Weight, Failure> {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.dense.entry((n, k)) {
            let mut state = (n * 31 + k) as u64;
            // Rows that keep the size of activations: uniform with a variance of 1 / k.
            let scale = (3.0 / k as f32).sqrt();
            let values: Vec<f16> = (0..n * k)
                .map(|_| {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    f16::from_f32(scale * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0))
                })
                .collect();
            let tensor = self.gpu.tensor(&[n, k], &values)?;
            entry.insert(Weight::from_tensor(self.gpu, Format::F16, &tensor)?);
        }
        let group = Group::Size(self.cli.group);
        Ok(quantize::quantized(self.gpu, &self.dense[&(n, k)], self.cli.format, group)?)
    }
}

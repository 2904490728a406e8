//! Audits every kernel on this machine's adapter: `cargo run --release --example audit -- --help`.
//!
//! The work is done in child processes, so that a crash, a hang or a lost device becomes a failed row.

mod jobs;
mod measured;
mod parent;
mod peers;
mod progress;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use wgmarlin::audit::{Message, Options, Part, Stage, Step, audit_items};
use wgmarlin::device::install_logger;
use wgmarlin::{CATALOGUE, Gpu, KernelSpec, Tier};

/// For every kernel × tier × dtype: does it compose, validate, translate to SPIR-V, MSL and HLSL, load, run, and
/// give right results; with --perf also how fast. Exit status 1 if any row fails.
#[derive(Parser)]
#[command(name = "audit")]
struct Cli {
    /// List kernels, tiers, variants and cases, and stop.
    #[arg(long)]
    list: bool,
    /// Only this family.
    #[arg(long, value_name = "F")]
    family: Option<String>,
    /// Only this kernel; may be given several times.
    #[arg(long, value_name = "K")]
    kernel: Vec<String>,
    /// Only this tier: base, subgroup, coop, spirv or msl.
    #[arg(long, value_name = "T", value_parser = tier)]
    tier: Option<Tier>,
    /// `full` compiles the shaders with bounds checks.
    #[arg(long, value_name = "LEVEL", value_parser = ["full"])]
    checks: Option<String>,
    /// Compare and time the cases of real shape too.
    #[arg(long)]
    perf: bool,
    /// Time each case at the best tier that serves it only.
    #[arg(long, requires = "perf")]
    best: bool,
    /// Of the other cases only the quick ones.
    #[arg(long)]
    quick: bool,
    /// Begin no case after this many seconds; those that are left count as not reached.
    #[arg(long, value_name = "SECONDS")]
    budget: Option<u64>,
    /// Processes at a time, where nothing is timed; 8 on a GPU, 2 on a software adapter, but at most one a core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
    /// Also write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Part of the adapter's name; WGMARLIN_ADAPTER is the same.
    #[arg(long, value_name = "S")]
    adapter: Option<String>,
    /// Show the 37 upstream files and how far their replacements have come on this adapter.
    #[arg(long, conflicts_with_all = ["family", "kernel", "tier"])]
    inventory: bool,

    /// Audit items of this part of the audit in this process and print messages: quick, full or perf (internal).
    #[arg(long, hide = true, value_parser = part)]
    child: Option<Part>,
    /// The kernels and tiers whose items are meant, as `kernel:tier,kernel:tier` (internal).
    #[arg(long, hide = true, value_delimiter = ',', value_parser = unit)]
    work: Vec<Unit>,
    /// First item, and the one after the last (internal).
    #[arg(long, hide = true, value_delimiter = ',', default_values_t = [0, usize::MAX])]
    items: Vec<usize>,
    /// Compile one case's pipelines at a time (internal).
    #[arg(long, hide = true)]
    serial: bool,
    /// Bytes per second of a copy, as the parent measured it (internal).
    #[arg(long, hide = true)]
    copy_bandwidth: Option<f64>,
    /// Make children `crash` or `hang` when they run a case, to test the audit itself (internal).
    #[arg(long, hide = true, value_parser = ["crash", "hang"])]
    fault: Option<String>,
    /// Most seconds for any step, to test the audit itself (internal).
    #[arg(long, hide = true)]
    limit: Option<u64>,
}

/// A kernel at a tier.
type Unit = (&'static KernelSpec, Tier);

fn tier(name: &str) -> Result<Tier, String> {
    Tier::parse(name).ok_or_else(|| format!("one of {}", Tier::ALL.map(Tier::name).join(", ")))
}

fn part(name: &str) -> Result<Part, String> {
    match name {
        "quick" => Ok(Part::Quick),
        "full" => Ok(Part::Full),
        "perf" => Ok(Part::Perf),
        _ => Err("quick, full or perf".into()),
    }
}

fn unit(text: &str) -> Result<Unit, String> {
    let (kernel, name) = text.split_once(':').ok_or("kernel:tier")?;
    let spec = CATALOGUE.iter().find(|spec| spec.name == kernel).ok_or("no such kernel")?;
    Ok((spec, tier(name)?))
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).build();
    log::set_max_level(logger.filter());
    // There is no other logger yet.
    let _ = install_logger(logger);
    let cli = Cli::parse();
    let done = match (cli.list, cli.child) {
        (true, _) => list(&cli),
        (_, Some(part)) => child(&cli, part),
        _ => parent::audit(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("audit: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    /// The kernels that the filters leave.
    fn kernels(&self) -> Result<Vec<&'static KernelSpec>, Failure> {
        let keep = |spec: &&&KernelSpec| {
            self.family.as_deref().is_none_or(|f| f == spec.family)
                && (self.kernel.is_empty() || self.kernel.iter().any(|k| k == spec.name))
                && self.tier.is_none_or(|t| spec.tier(t).is_some())
        };
        let kept: Vec<_> = CATALOGUE.iter().filter(keep).copied().collect();
        let unknown = self.kernel.iter().any(|k| !kept.iter().any(|spec| spec.name == k));
        if kept.is_empty() || unknown {
            let names: Vec<_> = CATALOGUE.iter().map(|s| format!("{}/{}", s.family, s.name)).collect();
            return Err(format!("no such kernel or tier; there are {}", names.join(", ")).into());
        }
        Ok(kept)
    }

    /// Tiers of `spec` to audit.
    fn tiers(&self, spec: &KernelSpec) -> Vec<Tier> {
        spec.tiers.iter().map(|t| t.tier).filter(|t| self.tier.is_none_or(|only| only == *t)).collect()
    }

    fn open(&self) -> wgmarlin::Result<Gpu> {
        let builder = Gpu::builder().checked(self.checks.is_some());
        match &self.adapter {
            Some(name) => builder.name(name).open(),
            None => builder.open(),
        }
    }
}

fn list(cli: &Cli) -> Result<bool, Failure> {
    for spec in cli.kernels()? {
        println!("{}/{}", spec.family, spec.name);
        for tier in cli.tiers(spec) {
            let variants = spec.tier(tier).map_or(0, |t| (t.variants)().len());
            println!("  tier {}: {variants} variants", tier.name());
        }
        for case in (spec.cases)() {
            println!("  case {} {} ({:?})", case.dtype, case.label, case.level);
        }
    }
    Ok(true)
}

/// Audits in this process; the parent reads what is printed.
fn child(cli: &Cli, part: Part) -> Result<bool, Failure> {
    let options = Options {
        perf: part == Part::Perf,
        best: cli.best,
        serial: cli.serial,
        copy_bandwidth: cli.copy_bandwidth,
        deadline: cli.budget.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
    };
    let &[from, to] = &cli.items[..] else { return Err("--items takes two numbers".into()) };
    let gpu = cli.open()?;
    audit_items(&gpu, &jobs::ordered(part, &cli.work)?, (from, to), &options, &mut |message| {
        if let Ok(text) = serde_json::to_string(&message) {
            println!("{text}");
        }
        if let (Message::Step(Step { stage: Stage::Run, .. }), Some(fault)) = (&message, &cli.fault) {
            match fault.as_str() {
                "crash" => std::process::abort(),
                _ => std::thread::sleep(Duration::from_secs(3600)),
            }
        }
    })?;
    Ok(true)
}

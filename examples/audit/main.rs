//! Audits every kernel on this machine's adapter: `cargo run --release --example audit -- --help`.
//!
//! Each kernel is audited in a child process, so that a crash, a hang or a lost device becomes a failed row.

mod parent;

use std::process::ExitCode;

use clap::Parser;
use wgmarlin::audit::{Message, Options, Report, audit_tier, support_table};
use wgmarlin::device::install_logger;
use wgmarlin::{CATALOGUE, Gpu, KernelSpec, Tier};

/// For every kernel × tier × dtype: does it compose, validate, translate to SPIR-V, MSL and HLSL, load, run, and
/// give right results; with --perf also how fast. Exit status 1 if any row fails.
#[derive(Parser, Clone, Debug)]
#[command(name = "audit")]
struct Cli {
    /// List kernels, tiers, variants and cases, and stop.
    #[arg(long)]
    list: bool,
    /// Join reports that `--json` wrote on several machines into one table, and stop.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    merge: Vec<std::path::PathBuf>,
    /// Only this family.
    #[arg(long, value_name = "F")]
    family: Option<String>,
    /// Only this kernel.
    #[arg(long, value_name = "K")]
    kernel: Option<String>,
    /// Only this tier: base, subgroup, coop or msl.
    #[arg(long, value_name = "T", value_parser = tier)]
    tier: Option<Tier>,
    /// `full` compiles the shaders with bounds checks and compares the largest shapes with the reference too.
    #[arg(long, value_name = "LEVEL", value_parser = ["full"])]
    checks: Option<String>,
    /// Time the cases of real shape.
    #[arg(long)]
    perf: bool,
    /// Also write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Part of the adapter's name; WGMARLIN_ADAPTER is the same.
    #[arg(long, value_name = "S")]
    adapter: Option<String>,
    /// Show the 37 upstream files and how far their replacements have come on this adapter.
    #[arg(long, conflicts_with_all = ["family", "kernel", "tier"])]
    inventory: bool,
    /// Only the quick cases.
    #[arg(long)]
    quick: bool,

    /// Audit these tiers of --kernel in this process and print messages (internal).
    #[arg(long, hide = true, value_delimiter = ',', value_parser = tier)]
    child: Vec<Tier>,
    /// Bytes per second of a copy, as the parent measured it (internal).
    #[arg(long, hide = true)]
    copy_bandwidth: Option<f64>,
    /// Make children `crash` or `hang` at their first case, to test the audit itself (internal).
    #[arg(long, hide = true, value_parser = ["crash", "hang"])]
    fault: Option<String>,
    /// Most seconds for any step, to test the audit itself (internal).
    #[arg(long, hide = true)]
    limit: Option<u64>,
}

fn tier(name: &str) -> Result<Tier, String> {
    Tier::parse(name).ok_or_else(|| format!("one of {}", Tier::ALL.map(Tier::name).join(", ")))
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).build();
    log::set_max_level(logger.filter());
    // There is no other logger yet.
    let _ = install_logger(logger);
    let cli = Cli::parse();
    let done = match (cli.list, cli.child.is_empty()) {
        _ if !cli.merge.is_empty() => merge(&cli.merge),
        (true, _) => list(&cli),
        (_, false) => child(&cli),
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
                && self.kernel.as_deref().is_none_or(|k| k == spec.name)
                && self.tier.is_none_or(|t| spec.tier(t).is_some())
        };
        let kept: Vec<_> = CATALOGUE.iter().filter(keep).copied().collect();
        if kept.is_empty() {
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

/// Prints docs/support.md.
fn merge(files: &[std::path::PathBuf]) -> Result<bool, Failure> {
    let read = |path: &std::path::PathBuf| -> Result<Report, Failure> {
        let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?)
    };
    let reports: Vec<Report> = files.iter().map(read).collect::<Result<_, _>>()?;
    println!(
        "# Support\n\nWritten by `make audit-report` from the reports of `audit --json`. Numbers are cases, of all dtypes: "
    );
    println!("those that are right, of those that there are. `–`: the adapter lacks what the tier needs.\n");
    println!("{}", support_table(&reports));
    for Report { adapter, rows } in &reports {
        let failed = rows.iter().filter(|row| row.state.is_failure()).count();
        println!(
            "\n- {} ({}; {}): {} rows, {failed} failed",
            adapter.name,
            adapter.backend,
            adapter.driver,
            rows.len()
        );
    }
    Ok(true)
}

/// Audits in this process; the parent reads what is printed.
fn child(cli: &Cli) -> Result<bool, Failure> {
    let options = Options {
        quick: cli.quick,
        perf: cli.perf,
        thorough: cli.checks.is_some(),
        copy_bandwidth: cli.copy_bandwidth,
    };
    let gpu = cli.open()?;
    for spec in cli.kernels()? {
        for tier in spec.tiers.iter().filter(|t| cli.child.contains(&t.tier)) {
            audit_tier(&gpu, spec, tier, &options, &mut |message| {
                if let Ok(text) = serde_json::to_string(&message) {
                    println!("{text}");
                }
                if let (Message::Step(step), Some(fault)) = (&message, &cli.fault)
                    && !step.dtype.is_empty()
                {
                    match fault.as_str() {
                        "crash" => std::process::abort(),
                        _ => std::thread::sleep(std::time::Duration::from_secs(3600)),
                    }
                }
            });
        }
    }
    Ok(true)
}

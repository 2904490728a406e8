//! Compares and times chosen cases, with shaders read from directories instead of the binary:
//! `tune --kernel gemm --tier coop --case 4096×4096 --shaders new`. For trying out a shader where only this program is.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use wgmarlin::audit::{Outcome, copy_bandwidth, measure_case, run_case, shaders_from, significant};
use wgmarlin::{CATALOGUE, Gpu, KernelSpec, Tier};

#[derive(Parser)]
#[command(name = "tune")]
struct Cli {
    /// A kernel; may be given several times.
    #[arg(long, required = true, value_name = "K")]
    kernel: Vec<String>,
    #[arg(long, value_name = "T", value_parser = |name: &str| Tier::parse(name).ok_or("no such tier"))]
    tier: Tier,
    /// A part of the cases' text; all cases of real shape without it.
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,
    /// Of the activations.
    #[arg(long, default_value = "f16")]
    dtype: String,
    /// A folder laid out as `wgsl/`, whose files replace those of the binary; the binary's own come first.
    #[arg(long, value_name = "DIR")]
    shaders: Vec<PathBuf>,
    /// Time only.
    #[arg(long)]
    unchecked: bool,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tune: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool, Failure> {
    if let Some(dir) = cli.shaders.iter().find(|dir| !dir.is_dir()) {
        return Err(format!("{} is not a folder", dir.display()).into());
    }
    let mut right = true;
    for dir in std::iter::once(None).chain(cli.shaders.iter().map(Some)) {
        shaders_from(dir.cloned());
        let gpu = Gpu::new()?; // without the pipelines of the last
        if dir.is_none() {
            println!("{}, copy {:.0} GB/s", gpu.caps().adapter, copy_bandwidth(&gpu)? / 1e9);
        }
        let name = dir.map_or("binary".into(), |dir| dir.display().to_string());
        for kernel in &cli.kernel {
            let spec = CATALOGUE.iter().find(|spec| spec.name == kernel).ok_or("no such kernel")?;
            right &= kernel_cases(cli, &gpu, spec, &name)?;
        }
    }
    Ok(right)
}

fn kernel_cases(cli: &Cli, gpu: &Gpu, spec: &KernelSpec, shaders: &str) -> Result<bool, Failure> {
    let (mut right, mut any) = (true, false);
    for case in (spec.cases)() {
        let named = if cli.case.is_empty() {
            case.level == wgmarlin::kernel::Level::Perf
        } else {
            cli.case.iter().any(|text| case.label.contains(text))
        };
        if !named || case.dtype != cli.dtype {
            continue;
        }
        any = true;
        let verdict = if cli.unchecked {
            "not compared".to_string()
        } else {
            match run_case(gpu, Some(cli.tier), &case) {
                Ok(Outcome::Correct { error, tolerance }) => {
                    format!("error {error:.1e} of {tolerance:.1e}")
                }
                Ok(Outcome::Skipped(why)) => format!("skipped: {why}"),
                Ok(Outcome::Wrong { why, .. }) => {
                    right = false;
                    format!("WRONG: {why}")
                }
                Err(error) => {
                    right = false;
                    format!("FAILED: {error}")
                }
            }
        };
        let time = match measure_case(gpu, Some(cli.tier), &case) {
            Ok(t) => format!(
                "{:>9} µs {:>7.0} GB/s {:>7.1} TFLOP/s",
                significant(t.seconds * 1e6),
                t.cost.bytes as f64 / t.seconds / 1e9,
                t.cost.flops as f64 / t.seconds / 1e12
            ),
            Err(error) => format!("not timed: {error}"),
        };
        println!("{shaders}: {} {} {}: {time}; {verdict}", spec.name, cli.tier.name(), case.label);
    }
    if !any {
        return Err(format!("{} has no such case of {}", spec.name, cli.dtype).into());
    }
    Ok(right)
}

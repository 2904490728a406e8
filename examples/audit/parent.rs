//! Runs the children, shows the progress, and prints and writes the result.

use std::io::IsTerminal;
use std::process::Command;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use wgmarlin::audit::{
    Ended, Message, Row, Stage, State, Step, copy_bandwidth, inventory, inventory_table, supervise, table,
};
use wgmarlin::{CATALOGUE, Capability, Caps, Gpu, KernelSpec, Tier};

use super::{Cli, Failure};

/// Opening the device and its canaries.
const START_LIMIT: Duration = Duration::from_secs(60);

pub fn audit(cli: &Cli) -> Result<bool, Failure> {
    let start = Instant::now();
    let kernels = cli.kernels()?;
    // Our own device is closed before the first child opens one: a kernel that resets the GPU must not take it.
    let (caps, bandwidth) = {
        let gpu: Gpu = cli.open()?;
        let bandwidth = if cli.perf { Some(copy_bandwidth(&gpu)?) } else { None };
        (gpu.caps().clone(), bandwidth)
    };
    header(&caps, bandwidth);
    let total: usize = kernels.iter().map(|spec| cli.tiers(spec).len()).sum();
    let progress = Progress::new(total);
    let mut rows = Vec::new();
    for spec in kernels {
        kernel(cli, spec, bandwidth, &progress, &mut rows)?;
    }
    progress.finish();

    println!("\n{}\n", table(&rows));
    let entries = if cli.inventory { inventory(CATALOGUE, &rows) } else { Vec::new() };
    if cli.inventory {
        println!("{}\n", inventory_table(&entries));
        let whole = entries.iter().filter(|e| e.whole()).count();
        let part = entries.iter().filter(|e| e.in_part()).count();
        let absent = entries.len() - whole - part;
        println!("{} files: {whole} replaced, {part} in part, {absent} absent", entries.len());
    }
    let count = |wanted: &dyn Fn(State) -> bool| rows.iter().filter(|row| wanted(row.state)).count();
    let failed = count(&State::is_failure);
    println!(
        "{} rows: {} correct, {} unavailable on this adapter, {failed} failed; {:.0} s",
        rows.len(),
        count(&|s| s == State::Correct),
        count(&|s| s == State::Unavailable),
        start.elapsed().as_secs_f64()
    );
    for row in rows.iter().filter(|row| row.state.is_failure()) {
        let reason = row.reason.as_deref().unwrap_or_default();
        println!("FAILED {} {} {}: {}: {reason}", row.kernel, row.tier, row.dtype, row.state);
    }
    if let Some(path) = &cli.json {
        let files: Vec<_> = entries
            .iter()
            .map(|e| json!({ "file": e.file.name, "kernels": e.kernels, "state": e.state_text(), "note": e.note() }))
            .collect();
        let report = json!({
            "adapter": { "name": caps.adapter, "backend": caps.backend.to_string(), "driver": caps.driver },
            "checks": cli.checks, "copy_gb_s": bandwidth.map(|b| b / 1e9), "rows": rows, "inventory": files,
        });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(failed == 0)
}

fn header(caps: &Caps, bandwidth: Option<f64>) {
    println!("adapter: {} ({}, {:?}; {})", caps.adapter, caps.backend, caps.device_type, caps.driver);
    let has: Vec<String> = Capability::ALL
        .into_iter()
        .map(|c| match c {
            c if !caps.has(c) => format!("no {} ({})", c.name(), caps.why_missing(c)),
            Capability::Subgroup => format!("subgroups of {}", caps.subgroup_size),
            Capability::Coop => format!("coop side {}", caps.coop_side.unwrap_or(0)),
            c => c.name().to_string(),
        })
        .collect();
    println!("capabilities: {}", has.join(", "));
    if let Some(bandwidth) = bandwidth {
        println!("copy: {:.1} GB/s (read and written together)", bandwidth / 1e9);
    }
}

/// Audits one kernel, all tiers in one child; after a crash or hang the tiers that are left go to another.
fn kernel(
    cli: &Cli,
    spec: &'static KernelSpec,
    bandwidth: Option<f64>,
    progress: &Progress,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    let mut tiers = cli.tiers(spec);
    while let Some(&first) = tiers.first() {
        // Where the child is; before its first step it opens the device.
        let mut at = Step {
            tier: first.name().into(),
            dtype: String::new(),
            case: "opening the device".into(),
            stage: Stage::Load,
            limit: START_LIMIT.as_secs(),
        };
        let ended = supervise(&mut command(cli, spec, &tiers, bandwidth)?, START_LIMIT, |line| {
            match serde_json::from_str(line) {
                Ok(Message::Step(step)) => {
                    progress.step(spec, &step);
                    at = step;
                }
                Ok(Message::Row(row)) => {
                    progress.row(&row);
                    rows.push(*row);
                }
                Err(_) => log::debug!("{}: {line}", spec.name),
            }
            Duration::from_secs(cli.limit.unwrap_or(at.limit))
        })?;
        let (state, why) = match ended {
            Ended::Done => break,
            Ended::Crashed(why) => (State::Crashed, why),
            Ended::Hung(limit) => (State::Hung, format!("nothing for {} s", limit.as_secs())),
        };
        let row = Row::lost(spec, &at, state, &why);
        progress.row(&row);
        rows.push(row);
        tiers = tiers.into_iter().skip_while(|t| t.name() != at.tier).skip(1).collect();
    }
    progress.done(cli.tiers(spec).len());
    Ok(())
}

fn command(cli: &Cli, spec: &KernelSpec, tiers: &[Tier], bandwidth: Option<f64>) -> Result<Command, Failure> {
    // Without /proc (a chroot) the path is not known, but the name that we were called by may do.
    let program = std::env::current_exe().or_else(|e| std::env::args_os().next().map(Into::into).ok_or(e))?;
    let mut command = Command::new(program);
    let names: Vec<_> = tiers.iter().map(|t| t.name()).collect();
    command.args(["--kernel", spec.name, "--child", &names.join(",")]);
    for (flag, on) in [("--quick", cli.quick), ("--perf", cli.perf)] {
        command.args(on.then_some(flag));
    }
    let bandwidth = bandwidth.map(|b| b.to_string());
    for (flag, value) in [
        ("--checks", &cli.checks),
        ("--adapter", &cli.adapter),
        ("--fault", &cli.fault),
        ("--copy-bandwidth", &bandwidth),
    ] {
        if let Some(value) = value {
            command.args([flag, value]);
        }
    }
    Ok(command)
}

/// A bar on a terminal, plain lines otherwise.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(total: usize) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Progress { bar }
    }

    fn step(&self, spec: &KernelSpec, step: &Step) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} {} {} {}", spec.name, step.tier, step.dtype, step.case));
        }
    }

    fn row(&self, row: &Row) {
        let text = format!("{} {} {}: {}", row.kernel, row.tier, row.dtype, row.state);
        match &self.bar {
            Some(bar) if row.state.is_failure() => bar.println(text),
            Some(_) => {}
            None => eprintln!("{text}"),
        }
    }

    fn done(&self, tiers: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(tiers as u64);
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

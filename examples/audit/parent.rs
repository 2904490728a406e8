//! Plans the work, runs it, and prints and writes the result.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use wgmarlin::audit::{
    Part, Row, Rows, State, copy_bandwidth, inventory, inventory_table, significant, table,
};
use wgmarlin::{CATALOGUE, Capability, Caps, Gpu};

use super::jobs::{Job, Shared};
use super::measured::Measured;
use super::peers::Peers;
use super::progress::Progress;
use super::{Cli, Failure, Unit};

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
    let units: Vec<Unit> =
        kernels.iter().flat_map(|&spec| cli.tiers(spec).into_iter().map(move |tier| (spec, tier))).collect();
    let checks = Job::split(if cli.quick { Part::Quick } else { Part::Full }, &units);
    let timed = if cli.perf { Job::whole(Part::Perf, &units) } else { Vec::new() };
    let shared = Shared {
        cli,
        bandwidth,
        deadline: cli.budget.and_then(|seconds| start.checked_add(Duration::from_secs(seconds))),
        progress: Progress::new(checks.iter().chain(&timed).map(Job::cases).sum()),
        rows: Mutex::new(Rows::new(&kernels)),
    };
    shared.run(checks, processes(cli, &caps))?;
    shared.run(timed, 1)?;
    shared.progress.finish();
    let rows = shared.rows.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    report(cli, &caps, bandwidth, &rows, start)
}

/// How many children may run at a time.
fn processes(cli: &Cli, caps: &Caps) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let software = caps.device_type == wgpu::DeviceType::Cpu;
    cli.jobs.map_or(cores.min(if software { 2 } else { 8 }), |n| n as usize)
}

fn report(
    cli: &Cli,
    caps: &Caps,
    bandwidth: Option<f64>,
    rows: &[Row],
    start: Instant,
) -> Result<bool, Failure> {
    println!("\n{}\n", table(rows));
    let entries = if cli.inventory { inventory(CATALOGUE, rows) } else { Vec::new() };
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
    let unreached: usize = rows.iter().map(|row| row.cases.unreached).sum();
    if unreached > 0 {
        println!("{unreached} cases not reached; {} rows without any", count(&|s| s == State::Unreached));
    }
    for row in rows.iter().filter(|row| row.state.is_failure()) {
        let reason = row.reason.as_deref().unwrap_or_default();
        println!("FAILED {} {} {}: {}: {reason}", row.kernel, row.tier, row.dtype, row.state);
    }
    let peers = Peers::read()?;
    let performance = peers.compare(rows);
    targets(&performance, &peers.device);
    if let Some(path) = &cli.json {
        let files: Vec<_> = entries
            .iter()
            .map(|e| json!({ "file": e.file.name, "kernels": e.kernels, "state": e.state_text(), "note": e.note() }))
            .collect();
        // The timings stand in `performance`.
        let rows: Vec<Row> = rows.iter().map(|row| Row { perf: Vec::new(), ..row.clone() }).collect();
        let has: Vec<_> =
            Capability::ALL.into_iter().filter(|c| caps.has(*c)).map(Capability::name).collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"), "date": today(),
            "adapter": {
                "name": caps.adapter, "backend": caps.backend.to_string(), "driver": caps.driver,
                "type": format!("{:?}", caps.device_type), "capabilities": has,
                "subgroup_size": caps.subgroup_size, "coop_side": caps.coop_side,
            },
            "level": if cli.quick { "quick" } else { "full" }, "checks": cli.checks,
            "copy_gb_s": bandwidth.map(|b| b / 1e9),
            "rows": rows, "performance": performance, "peers": peers, "inventory": files,
        });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(failed == 0)
}

/// The cases that must be so fast, and whether they are.
fn targets(performance: &[Measured], device: &str) {
    let slower = |m: &Measured| {
        let like = |o: &&Measured| (&o.kernel, &o.dtype, &o.case) == (&m.kernel, &m.dtype, &m.case);
        performance.iter().filter(like).any(|other| other.us < m.us)
    };
    let best = performance.iter().filter(|m| !slower(m)).filter_map(|m| Some((m, m.must.as_ref()?)));
    let mut best = best.peekable();
    if best.peek().is_some() {
        println!("\ntargets, which were set for {device}:");
    }
    for (m, must) in best {
        let met = if must.met { "met" } else { "MISSED" };
        let (us, most) = (significant(m.us), significant(must.us));
        println!("{met}: {} {} {} {}: {us} µs of {most}", m.kernel, m.tier, m.dtype, m.case);
    }
}

/// The date in UTC, as 2026-11-23.
fn today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400) as i64;
    // Years from March on have their leap day at the end; 400 of them have 146097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
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

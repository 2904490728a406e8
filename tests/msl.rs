//! Runs MSL without a Mac: every case of every kernel that has an Msl tier, with the text that a Metal device would be given, and
//! the WGSL tiers as naga translates them for Metal. `tests/msl_host` builds the text for the CPU and checks every access;
//! results are compared as on any adapter. On a Mac the catalogue's tests run the same kernels on Metal.
//!
//! `WGMARLIN_MSL` says how much: `some` (the default; a part of the cases, two schedules), `all` (every case, three schedules),
//! `fast-math` and `alt-layout` (every case of the Msl tier, built so).

#[path = "msl_host/faults.rs"]
mod faults;
mod msl_host;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use faults::{FAULTS, Fault};
use libtest_mimic::{Arguments, Failed, Trial};
use msl_host::{Buffer, Options, Run};
use wgmarlin::audit::{Outcome, as_apple, run_case_by_hand};
use wgmarlin::device::MSL_CANARY;
use wgmarlin::kernel::{Access, Case, Handed, KernelSpec, Level, find};
use wgmarlin::{CATALOGUE, Error, Gpu, Tier};

/// Opened by the first test, so that listing needs no adapter. The tensors lie in its memory.
static GPU: OnceLock<Result<Gpu, String>> = OnceLock::new();
static SKIPPED: AtomicUsize = AtomicUsize::new(0);
/// What one case could not be run for, beside a missing tool.
static REASONS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn gpu() -> Result<&'static Gpu, Failed> {
    let open = || Gpu::new().map(|gpu| as_apple(&gpu)).map_err(|e| e.to_string());
    GPU.get_or_init(open).as_ref().map_err(Failed::from)
}

/// How much is run, and how.
struct Plan {
    all: bool,
    /// The WGSL tiers too.
    nagas: bool,
    options: Options,
}

impl Plan {
    fn from_env() -> Result<Plan, String> {
        let plan = |all, nagas, orders: &[&'static str]| {
            let (orders, timeout) = (orders.to_vec(), if all { 1800 } else { 120 });
            Plan { all, nagas, options: Options { orders, fast_math: false, alt_layout: false, timeout } }
        };
        let every = plan(true, false, &["fwd"]);
        Ok(match std::env::var("WGMARLIN_MSL").as_deref().unwrap_or("some") {
            "some" => plan(false, true, &["rev", "rand:1"]),
            "all" => plan(true, true, &["fwd", "rev", "rand:1"]),
            "fast-math" => Plan { options: Options { fast_math: true, ..every.options }, ..every },
            "alt-layout" => Plan { options: Options { alt_layout: true, ..every.options }, ..every },
            other => {
                return Err(format!("WGMARLIN_MSL = {other:?} must be some, all, fast-math or alt-layout"));
            }
        })
    }

    /// naga's MSL is of the tiers that Metal runs.
    fn includes_tier(&self, tier: Tier) -> bool {
        tier == Tier::Msl || self.nagas && tier != Tier::Spirv
    }

    /// Of the cases of an Msl tier every fourth quick one and every 48th other, of those of another tier the first quick one (of
    /// Coop, of each dtype): a second of a core goes into building each one's kernel. `number` counts the cases of one level.
    fn includes(&self, tier: Tier, number: usize, level: Level) -> bool {
        match (level, tier) {
            (Level::Perf, _) => false,
            _ if self.all => true,
            (Level::Quick, Tier::Msl) => number.is_multiple_of(4),
            (Level::Full, Tier::Msl) => number.is_multiple_of(48),
            (level, _) => level == Level::Quick && number == 0,
        }
    }

    /// The most threads of a launch: a CPU runs about a million a minute.
    fn most_threads(&self, tier: Tier) -> u64 {
        if self.all && tier == Tier::Msl { u64::MAX } else { 300_000 }
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Every test keeps a process of its own busy.
    arguments.test_threads.get_or_insert_with(|| std::thread::available_parallelism().map_or(2, usize::from));
    let plan: &'static Plan = match Plan::from_env() {
        Ok(plan) => Box::leak(Box::new(plan)),
        Err(why) => {
            eprintln!("{why}");
            std::process::exit(2);
        }
    };
    let mut trials = Vec::new();
    for &spec in CATALOGUE.iter().chain([&&MSL_CANARY]) {
        for tier in spec.tiers.iter().map(|t| t.tier).filter(|&t| plan.includes_tier(t)) {
            let mut of_level: HashMap<(Level, &str), usize> = HashMap::new();
            for (number, case) in (spec.cases)().into_iter().enumerate() {
                // Matrices do not take every dtype, so the first of each.
                let dtype = if tier == Tier::Coop { case.dtype } else { "" };
                let count = of_level.entry((case.level, dtype)).or_default();
                *count += 1;
                if plan.includes(tier, *count - 1, case.level) {
                    let name =
                        format!("{}::{}::{number:03} {} {}", spec.name, tier.name(), case.dtype, case.label);
                    trials.push(Trial::test(name, move || check(spec, tier, &case, plan)));
                }
            }
        }
    }
    for fault in FAULTS.iter().filter(|_| plan.nagas) {
        trials.push(Trial::test(format!("fault::{}: {}", fault.kernel, fault.name), move || catch(fault)));
    }
    if plan.nagas {
        trials.push(Trial::test("msl_host::self-test", self_test));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    msl_host::stop();
    for reason in REASONS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("skipped: {reason}");
    }
    let skipped = SKIPPED.load(Ordering::Relaxed);
    if let (Some(why), true) = (msl_host::missing(), skipped > 0) {
        println!("{skipped} MSL cases SKIPPED: {why}");
        if std::env::var("CI_REQUIRE_MSL").is_ok_and(|v| v == "1") {
            println!("CI_REQUIRE_MSL=1: that is a failure");
            std::process::exit(1);
        }
    }
    conclusion.exit();
}

/// The tool's own test: kernels that must pass, and faults that must be caught.
fn self_test() -> Result<(), Failed> {
    if msl_host::missing().is_some() {
        SKIPPED.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    msl_host::self_test().map_err(Failed::from)
}

/// Plants a fault and sees that it is caught; also that the case passes without it.
fn catch(fault: &Fault) -> Result<(), Failed> {
    if msl_host::missing().is_some() {
        SKIPPED.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let gpu = gpu()?;
    let spec = find(fault.kernel).ok_or("no such kernel")?;
    let case = (spec.cases)()
        .into_iter()
        .find(|c| c.dtype == "f16" && c.label.contains(fault.case))
        .ok_or("no such case")?;
    let mut plan = Plan {
        all: true,
        nagas: false,
        options: Options { orders: vec!["fwd", "rev"], ..Options::default() },
    };
    for alt_layout in [false, true] {
        plan.options.alt_layout = alt_layout;
        for planted in [false, true] {
            let mut kinds = Vec::new();
            let outcome = run_case_by_hand(gpu, Tier::Msl, &case, &mut |launch| {
                let changes = if planted { fault.changes } else { &[] };
                by_hand(gpu, launch, &plan, changes, &mut kinds)
            });
            if matches!(outcome, Ok(Outcome::Wrong { .. })) {
                kinds.push("wrong".to_string());
            }
            let (said, expected) =
                (format!("{outcome:?} {kinds:?}"), planted && alt_layout >= fault.alt_layout);
            match expected {
                false if !matches!(outcome, Ok(Outcome::Correct { .. })) => return Err(said.into()),
                true if !kinds.iter().any(|kind| fault.caught_as.contains(&kind.as_str())) => {
                    return Err(format!("not caught as {:?}: {said}", fault.caught_as).into());
                }
                _ => {}
            }
        }
        if !fault.alt_layout {
            break;
        }
    }
    Ok(())
}

fn check(spec: &KernelSpec, tier: Tier, case: &Case, plan: &Plan) -> Result<(), Failed> {
    if msl_host::missing().is_some() {
        SKIPPED.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let gpu = gpu()?;
    match run_case_by_hand(gpu, tier, case, &mut |launch| by_hand(gpu, launch, plan, &[], &mut Vec::new()))
        .map_err(|e| e.to_string())?
    {
        Outcome::Correct { .. } => Ok(()),
        Outcome::Wrong { error, tolerance, why } => {
            Err(format!("error {error:.2e} over {tolerance:.0e}: {why}").into())
        }
        // A tier that does not serve the request, or more threads than this machine can run.
        Outcome::Skipped(reason) => {
            let reason = format!("{} {} {}: {reason}", spec.name, tier.name(), case.label);
            REASONS.lock().unwrap_or_else(PoisonError::into_inner).push(reason);
            Ok(())
        }
    }
}

/// Does what a Metal device would do with a launch, its text changed by `changes`; what is complained of goes to `kinds`.
fn by_hand(
    gpu: &Gpu,
    launch: &Handed<'_>,
    plan: &Plan,
    changes: &[(&str, &str)],
    kinds: &mut Vec<String>,
) -> wgmarlin::Result<()> {
    let fail = |log: String| Error::Compile {
        kernel: format!("{} [{}]", launch.spec.name, launch.tier.name()),
        log,
    };
    let (need, max) = (launch.threads(), plan.most_threads(launch.tier));
    if need > max {
        return Err(Error::Limit { what: launch.spec.name.to_string(), name: "threads on a CPU", need, max });
    }
    let mut msl = launch.msl()?;
    for (from, to) in changes {
        if !msl.text.contains(from) {
            return Err(fail(format!("nothing to change: {from}")));
        }
        msl.text = msl.text.replacen(from, to, 1);
    }
    let mut buffers = vec![Buffer { slot: 0, bytes: launch.params.to_vec(), written: false }];
    for (i, binding) in launch.spec.bindings.iter().enumerate() {
        let written = binding.access == Access::ReadWrite;
        buffers.push(Buffer { slot: i + 1, bytes: launch.read(gpu, i)?, written });
    }
    let nagas = launch.tier != Tier::Msl;
    if nagas {
        // wgpu binds the lengths of the others last.
        let lengths = buffers[1..].iter().flat_map(|b| (b.bytes.len() as u32).to_ne_bytes()).collect();
        buffers.push(Buffer { slot: buffers.len(), bytes: lengths, written: false });
    }
    let run = Run {
        text: &msl.text,
        entry: &msl.entry,
        threads: launch.needs.threads,
        groups: launch.groups,
        threadgroup: &msl.threadgroup,
        runtime_arrays: nagas,
        buffers,
    };
    let ran = match msl_host::run(&run, &plan.options).map_err(fail)? {
        Ok(ran) => ran,
        Err(complaint) => {
            kinds.extend(complaint.kinds);
            return Err(fail(msl.with_origins(&complaint.log)));
        }
    };
    let (has, said) = (ran.threadgroup_bytes, launch.needs.workgroup_storage);
    if launch.tier == Tier::Msl && has > said {
        return Err(fail(format!(
            "takes {has} bytes of threadgroup memory, needs.workgroup_storage = {said}"
        )));
    }
    for Buffer { slot, bytes: before, .. } in run.buffers.iter().filter(|b| b.written) {
        // Byte by byte, as two bindings may lie in one buffer.
        let Some(after) = ran.out.get(slot) else { continue };
        let mut now = launch.read(gpu, slot - 1)?;
        for ((now, after), before) in now.iter_mut().zip(after).zip(before) {
            if after != before {
                *now = *after;
            }
        }
        launch.write(gpu, slot - 1, &now);
    }
    Ok(())
}

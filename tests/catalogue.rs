//! Every case of every kernel, on every tier, on this machine's adapter; one test each. Where one shader file serves
//! two tiers, which then differ in their reductions only, the lower one takes the quick cases and every third of the
//! others. A software adapter, which compiles for half a second for nearly every case, takes the quick ones, one at least of
//! every dtype and one in twenty-four of the others; of Coop and Msl one in four, as no other job runs all of Coop.
//! WGMARLIN_CASES=all takes all. Those left, and cases that the adapter cannot run, are counted at the end, the latter with
//! what they miss. A case whose specialisation is not among its tier's variants fails: `tests/shaders.rs` would never have
//! seen it.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use wgmarlin::audit::{Outcome, run_case};
use wgmarlin::device::install_logger;
use wgmarlin::kernel::{Case, Level, TierSpec};
use wgmarlin::{CATALOGUE, Gpu, Tier};

thread_local! {
    /// A device for every thread, as software Vulkan compiles the pipelines of one device one after the other, and few cases share
    /// a pipeline. Opened by the thread's first test, so that listing needs no adapter.
    static GPU: OnceCell<Result<Gpu, String>> = const { OnceCell::new() };
}
/// The adapter's name.
static ADAPTER: OnceLock<String> = OnceLock::new();

/// How many cases of each kernel and tier were skipped, and why.
static SKIPPED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

fn gpu() -> Result<Gpu, Failed> {
    let open = || {
        let gpu = Gpu::new().map_err(|e| e.to_string())?;
        ADAPTER.get_or_init(|| gpu.caps().adapter.clone());
        // A device that a thread's end destroys while the process ends was seen to crash the driver.
        std::mem::forget(gpu.clone());
        Ok(gpu)
    };
    GPU.with(|gpu| gpu.get_or_init(open).clone()).map_err(Failed::from)
}

fn main() {
    // Metal's compiler speaks through the log; there is no other logger yet.
    let _ = install_logger(env_logger::Logger::from_default_env());
    let mut arguments = Arguments::from_args();
    // Most of the time goes into compiling pipelines, which takes one core a device.
    arguments.test_threads.get_or_insert(2);
    let every = std::env::var("WGMARLIN_CASES").is_ok_and(|v| v == "all");
    // Without an adapter the tests say so.
    let software = !every && gpu().is_ok_and(|gpu| gpu.caps().device_type == wgpu::DeviceType::Cpu);
    let (mut trials, mut left) = (Vec::new(), 0);
    for spec in CATALOGUE {
        for TierSpec { tier, path, .. } in spec.tiers {
            let tier = *tier;
            let shared = !every && spec.tiers.iter().any(|better| better.tier > tier && better.path == *path);
            let rare = if tier < Tier::Coop { 24 } else { 4 };
            let one_of = if shared { 3 } else { 1 } * if software { rare } else { 1 };
            let cases = (spec.cases)();
            let mut dtypes: HashSet<_> =
                cases.iter().filter(|c| c.level == Level::Quick).map(|c| c.dtype).collect();
            for (number, case) in cases.into_iter().enumerate() {
                if case.level == Level::Perf {
                    continue;
                }
                let first = dtypes.insert(case.dtype);
                if case.level == Level::Full && !first && !is_one_of(one_of, number) {
                    left += 1;
                    continue;
                }
                let name =
                    format!("{}::{}::{number:03} {} {}", spec.name, tier.name(), case.dtype, case.label);
                trials.push(Trial::test(name, move || {
                    if let Some(reason) = check(tier, &case)? {
                        let why = format!("{} {}: {reason}", spec.name, tier.name());
                        let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
                        *skipped.entry(why).or_default() += 1;
                    }
                    Ok(())
                }));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    for (why, count) in skipped.iter() {
        println!("{count} skipped: {why}");
    }
    println!(
        "{left} cases left out, of shaders that other tiers or cases run (WGMARLIN_CASES=all runs them)"
    );
    if let Some(adapter) = ADAPTER.get() {
        let count: usize = skipped.values().sum();
        println!("{adapter}: {count} cases skipped for a missing capability");
    }
    conclusion.exit();
}

/// Picks one case of so many, without the rhythm that lists of cases have. Of the cases of more than 65535 workgroups, many of
/// which keep a software adapter busy for half a minute, the offset picks the one of `elementwise`, which takes two seconds.
fn is_one_of(many: u32, number: usize) -> bool {
    ((number as u32 + 27).wrapping_mul(0x9e37_79b1) >> 16).is_multiple_of(many)
}

/// Why the case cannot run here, if it cannot.
fn check(tier: Tier, case: &Case) -> Result<Option<String>, Failed> {
    match run_case(&gpu()?, Some(tier), case).map_err(|e| Failed::from(e.to_string()))? {
        Outcome::Correct { .. } => Ok(None),
        Outcome::Wrong { error, tolerance, why } => {
            Err(format!("error {error:.2e} over {tolerance:.0e}: {why}").into())
        }
        Outcome::Skipped(reason) => Ok(Some(reason)),
    }
}

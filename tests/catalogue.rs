//! Every case of every kernel, on every tier, on this machine's adapter; one test each. Cases that the adapter
//! cannot run are reported as ignored with the reason printed, and counted at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};
use wgmarlin::audit::{Outcome, run_case};
use wgmarlin::kernel::Level;
use wgmarlin::{CATALOGUE, Gpu};

fn main() {
    let mut arguments = Arguments::from_args();
    // Software Vulkan uses all cores for one dispatch; concurrent tests only add contention.
    arguments.test_threads.get_or_insert(2);
    let gpu = Gpu::new().unwrap_or_else(|e| {
        eprintln!("{e}");
        std::process::exit(1);
    });
    let skipped = Arc::new(AtomicUsize::new(0));
    let mut trials = Vec::new();
    for spec in CATALOGUE {
        for tier in spec.tiers {
            for (number, case) in (spec.cases)().into_iter().enumerate() {
                if case.level == Level::Perf {
                    continue;
                }
                let name =
                    format!("{}::{}::{number:03} {} {}", spec.name, tier.tier.name(), case.dtype, case.label);
                let (gpu, skipped, tier) = (gpu.clone(), skipped.clone(), tier.tier);
                trials.push(Trial::test(name.clone(), move || {
                    match run_case(&gpu, Some(tier), &case).map_err(|e| Failed::from(e.to_string()))? {
                        Outcome::Correct { .. } => Ok(()),
                        Outcome::Wrong { error, tolerance, why } => {
                            Err(format!("error {error:.2e} over {tolerance:.0e}: {why}").into())
                        }
                        Outcome::Skipped(reason) => {
                            skipped.fetch_add(1, Ordering::Relaxed);
                            println!("skipped {name}: {reason}");
                            Ok(())
                        }
                    }
                }));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    println!(
        "adapter {}; skipped for a missing capability: {}",
        gpu.caps().adapter,
        skipped.load(Ordering::Relaxed)
    );
    conclusion.exit();
}

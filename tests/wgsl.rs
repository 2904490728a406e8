//! Runs the tiers that are written in WGSL on the CPU, as a device with subgroups of 32 and cooperative matrices of 16 × 16 would: so the Spirv tier,
//! and the Coop tier with the matrices of large GPUs, are proved where there is none. `tests/wgsl_host` checks every access: bounds, and what
//! threads do in workgroup memory without a barrier. Results are compared as on any adapter.
//!
//! Quick cases of every kernel and tier; `WGMARLIN_WGSL=all` runs every case of the Spirv and Coop tiers too, `every` all of all.

mod wgsl_host;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use wgmarlin::audit::{Outcome, as_nvidia, run_case_by_hand};
use wgmarlin::device::SPIRV_CANARY;
use wgmarlin::kernel::{Access, Case, Handed, KernelSpec, Level};
use wgmarlin::{CATALOGUE, Error, Gpu, Tier};
use wgsl_host::faults::{FAULTS, caught, right_passes};
use wgsl_host::{Buffers, Launch};

thread_local! {
    /// Opened by the first test, so that listing needs no adapter. The tensors lie in its memory; one for each thread, as launches in it are in no
    /// order, and what a `Gpu` keeps for them is one for all.
    static GPU: Result<Gpu, String> = Gpu::new().map(|gpu| as_nvidia(&gpu)).map_err(|e| e.to_string());
}
/// What cases were not run for, and how many.
static SKIPPED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
/// Those that are written in WGSL.
const TIERS: [Tier; 4] = [Tier::Spirv, Tier::Coop, Tier::Subgroup, Tier::Base];

fn main() {
    let how = std::env::var("WGMARLIN_WGSL").unwrap_or_default();
    let all = |tier| how == "every" || how == "all" && matches!(tier, Tier::Spirv | Tier::Coop);
    let mut trials = Vec::new();
    for &spec in CATALOGUE.iter().chain([&&SPIRV_CANARY]) {
        for tier in TIERS.into_iter().filter(|&tier| spec.tier(tier).is_some()) {
            for (number, case) in (spec.cases)().into_iter().enumerate() {
                if case.level == Level::Quick || all(tier) && case.level == Level::Full {
                    let name =
                        format!("{}::{}::{number:03} {} {}", spec.name, tier.name(), case.dtype, case.label);
                    trials.push(Trial::test(name, move || check(spec, tier, &case)));
                }
            }
        }
    }
    for (name, body, said) in FAULTS {
        trials.push(Trial::test(format!("fault::{name}"), || caught(body, said).map_err(Failed::from)));
    }
    trials.push(Trial::test("fault::none", || right_passes().map_err(Failed::from)));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    skipped.iter().for_each(|(why, count)| println!("{count} skipped: {why}"));
    println!("{} cases skipped", skipped.values().sum::<usize>());
    conclusion.exit();
}

fn check(spec: &KernelSpec, tier: Tier, case: &Case) -> Result<(), Failed> {
    let gpu = GPU.with(Clone::clone).map_err(Failed::from)?;
    let gpu = &gpu;
    match run_case_by_hand(gpu, tier, case, &mut |launch| by_hand(gpu, launch)).map_err(|e| e.to_string())? {
        Outcome::Correct { .. } => Ok(()),
        Outcome::Wrong { error, tolerance, why } => {
            Err(format!("error {error:.2e} over {tolerance:.0e}: {why}").into())
        }
        Outcome::Skipped(reason) => {
            let reason = format!("{} {}: {reason}", spec.name, tier.name());
            *SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
            Ok(())
        }
    }
}

/// Does what a device would do with a launch.
fn by_hand(gpu: &Gpu, launch: &Handed<'_>) -> wgmarlin::Result<()> {
    let parsed = launch.parsed()?;
    let bindings = 0..launch.tensors.len();
    let before = bindings.clone().map(|i| launch.read(gpu, i)).collect::<Result<Vec<_>, _>>()?;
    let mut buffers = Buffers(before.clone());
    let of = Launch {
        module: &parsed.module,
        info: &parsed.info,
        groups: launch.groups,
        threads: launch.needs.threads as usize,
        params: launch.params,
    };
    wgsl_host::run(&of, &mut buffers).map_err(|log| Error::Compile {
        kernel: format!("{} [{}]", launch.spec.name, launch.tier.name()),
        log,
    })?;
    for i in bindings.filter(|&i| launch.spec.bindings[i].access == Access::ReadWrite) {
        // Byte by byte, as two bindings may lie in one buffer.
        let mut now = launch.read(gpu, i)?;
        for (now, (after, before)) in now.iter_mut().zip(buffers.0[i].iter().zip(&before[i])) {
            if after != before {
                *now = *after;
            }
        }
        launch.write(gpu, i, &now);
    }
    Ok(())
}

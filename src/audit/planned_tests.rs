//! What would be launched on a GPU that is not at hand is among the variants that the static stages see.

use super::by_hand::as_nvidia;
use super::compare::{dry_run, listed};
use crate::device::Gpu;
use crate::error::Error;
use crate::kernel::{CATALOGUE, Level, Tier};

#[test]
fn nvidia_s_variants_are_listed() {
    let gpu = as_nvidia(&Gpu::new().expect("an adapter"));
    for spec in CATALOGUE {
        for tier in [Tier::Coop, Tier::Spirv].into_iter().filter(|&tier| spec.tier(tier).is_some()) {
            let mut served = 0;
            for case in (spec.cases)().iter().filter(|case| case.level == Level::Quick) {
                let what = format!("{} {} {} {}", spec.name, tier.name(), case.dtype, case.label);
                let prepared = (case.prepare)(&gpu, 1).unwrap_or_else(|e| panic!("{what}: {e}"));
                let planned = match dry_run(&gpu, Some(tier), &prepared) {
                    Ok(planned) => planned,
                    Err(Error::Unsupported { .. }) => continue,
                    Err(error) => panic!("{what}: {error}"),
                };
                for (spec, key) in planned.pipelines {
                    listed(spec, key.tier, &key.defines).unwrap_or_else(|e| panic!("{what}: {e}"));
                }
                served += 1;
            }
            assert!(served > 0, "no case of {} is served by {}", spec.name, tier.name());
        }
    }
}

//! Every variant of every kernel: it composes, validates with no more than its declared capabilities, has the
//! parameter layout, bindings, threads and workgroup memory that the host declares, and translates to SPIR-V, MSL and
//! HLSL. MSL kernels compose and have the arguments that the host declares. No GPU is needed.

use std::collections::HashSet;

use libtest_mimic::{Arguments, Failed, Trial};
use wgmarlin::audit::{Coverage, static_stages};
use wgmarlin::device::{MSL_CANARY, SPIRV_CANARY};
use wgmarlin::kernel::{KernelSpec, TierSpec};
use wgmarlin::{CATALOGUE, Tier};

fn main() {
    let mut trials = Vec::new();
    for &spec in CATALOGUE.iter().chain([&&MSL_CANARY, &&SPIRV_CANARY]) {
        for tier in spec.tiers {
            let name = format!("{}::{}", spec.name, tier.tier.name());
            trials.push(Trial::test(name, move || check(spec, tier).map_err(Failed::from)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn check(spec: &'static KernelSpec, tier: &'static TierSpec) -> Result<(), String> {
    let variants = (tier.variants)();
    if variants.is_empty() {
        return Err("no variants".into());
    }
    let mut seen = HashSet::new();
    for variant in &variants {
        if !seen.insert(&variant.defines) {
            return Err(format!("listed twice: {:?}", variant.defines));
        }
        let needs = &variant.needs;
        if tier.tier == Tier::Base && needs.subgroup_size != 0 {
            return Err(format!("the Base tier asks for a subgroup size: {:?}", variant.defines));
        }
        // Base runs wherever WebGPU does; Apple GPUs have 32 KiB; those with matrices of side 16 have 48 at least, and those of the
        // Spirv tier 1024 threads.
        let (most, threads) = match (tier.tier, needs.coop_side) {
            (Tier::Base, _) => (16 << 10, 256),
            (Tier::Spirv, _) => (48 << 10, 1024),
            (_, 16) => (48 << 10, 256),
            _ => (32 << 10, 256),
        };
        if needs.workgroup_storage > most || needs.threads > threads {
            return Err(format!("asks for more than every adapter has: {variant:?}"));
        }
    }
    static_stages(spec, tier, Coverage::Every).map(drop).map_err(|(stage, why)| format!("{stage:?}: {why}"))
}

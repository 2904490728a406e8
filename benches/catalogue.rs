//! Times the cases of real shape of every kernel on every tier that the adapter has: `cargo bench [-- FILTER]`, where
//! a filter is a part of `kernel/tier/dtype/shape`. The audit's `--perf` shows the same figures beside correctness.

use wgmarlin::audit::{Perf, copy_bandwidth, measure_case};
use wgmarlin::kernel::Level;
use wgmarlin::{CATALOGUE, Error, Gpu};

fn main() -> Result<(), Error> {
    // Cargo passes `--bench`.
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let gpu = Gpu::new()?;
    let copy = copy_bandwidth(&gpu)?;
    println!("{}: copy {:.1} GB/s", gpu.caps().adapter, copy / 1e9);
    for spec in CATALOGUE {
        for tier in spec.tiers.iter().map(|t| t.tier) {
            for case in (spec.cases)().iter().filter(|case| case.level == Level::Perf) {
                let name = format!("{}/{}/{}/{}", spec.name, tier.name(), case.dtype, case.label);
                if !filters.is_empty() && !filters.iter().any(|part| name.contains(part)) {
                    continue;
                }
                match measure_case(&gpu, Some(tier), case) {
                    Ok(timing) => {
                        let perf = Perf::new(&case.label, &timing, Some(copy));
                        let percent = perf.copy_percent.unwrap_or(0.0);
                        println!(
                            "{name:<60} {:>11.2} µs {:>8.1} GB/s {:>8.2} TFLOP/s {percent:>4.0} % of copy ({})",
                            perf.micros, perf.gb_s, perf.tflop_s, perf.clock
                        );
                    }
                    Err(Error::Unsupported { need, .. }) => println!("{name:<60} needs {need}"),
                    Err(Error::Limit { name: limit, .. }) => println!("{name:<60} passes {limit}"),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

//! Runs one case on one tier and compares every output with the twin.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};

use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::kernel::{
    Case, Check, Defines, KernelSpec, POISON, Planned, Prepared, Recorder, Rule, Tier, TierSpec, Variant,
};
use crate::tensor::{DType, Tensor};

/// What became of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All outputs are right; the worst figure and its bound.
    Correct { error: f64, tolerance: f64 },
    /// An output is wrong; what and where.
    Wrong { error: f64, tolerance: f64, why: String },
    /// The adapter, or the tier, cannot serve this request; which capability is missing.
    Skipped(String),
}

/// Runs `case` at `tier` (or at the planner's choice) and compares.
///
/// # Errors
/// Anything but a missing capability, which is [`Outcome::Skipped`].
pub fn run_case(gpu: &Gpu, tier: Option<Tier>, case: &Case) -> Result<Outcome> {
    // Told before the operands are made: there are many such cases.
    if let Some(why) = tier.and_then(|tier| missing(gpu, tier)) {
        return Ok(Outcome::Skipped(why));
    }
    let ran = (case.prepare)(gpu, 1).and_then(|prepared| {
        load(gpu, tier, &prepared)?;
        run(gpu, tier, &prepared)?;
        Ok(prepared)
    });
    match ran {
        Ok(prepared) => compare_all(gpu, &prepared),
        Err(error) => skipped(error).map(Outcome::Skipped),
    }
}

/// The capability that the adapter lacks for a whole tier.
pub(crate) fn missing(gpu: &Gpu, tier: Tier) -> Option<String> {
    let capability = tier.needs().filter(|c| !gpu.caps().has(*c))?;
    Some(format!("needs {}: {}", capability.name(), gpu.caps().why_missing(capability)))
}

/// Launches a prepared case and waits for it.
pub(crate) fn run(gpu: &Gpu, tier: Option<Tier>, prepared: &Prepared) -> Result<()> {
    gpu.run(|recorder: &mut Recorder<'_, '_>| {
        recorder.only(tier);
        prepared.launches.iter().try_for_each(|launch| launch(recorder))
    })?;
    gpu.wait()
}

/// Compares what a prepared case has produced.
pub(crate) fn compare_all(gpu: &Gpu, prepared: &Prepared) -> Result<Outcome> {
    let mut worst = Outcome::Correct { error: 0.0, tolerance: 0.0 };
    for check in &prepared.checks {
        let (error, tolerance, why) = compare(gpu, check)?;
        if let Some(why) = why {
            return Ok(Outcome::Wrong { error, tolerance, why: format!("{}: {why}", check.name) });
        }
        if let Outcome::Correct { error: e, .. } = worst
            && error >= e
        {
            worst = Outcome::Correct { error, tolerance };
        }
    }
    Ok(worst)
}

/// Why the adapter cannot serve the request, if that is what `error` says.
pub(crate) fn skipped(error: Error) -> Result<String> {
    match error {
        Error::Unsupported { need, have, .. } => Ok(format!("needs {need}: {have}")),
        Error::Limit { what, name, need, max } => Ok(format!("{what}: {name} {max} < {need}")),
        error => Err(error),
    }
}

/// Kernel, tier and defines of a pipeline.
pub(crate) type Specialisation = (&'static str, Tier, Defines);

/// What the launches of a prepared case would use.
pub(crate) fn dry_run(gpu: &Gpu, tier: Option<Tier>, prepared: &Prepared) -> Result<Planned> {
    let mut dry = Recorder::dry(gpu);
    dry.only(tier);
    prepared.launches.iter().try_for_each(|launch| launch(&mut dry))?;
    Ok(dry.into_planned())
}

/// What tiers list, by the function that does: some list thousands, which takes as long as a small case.
type Listed = HashMap<fn() -> Vec<Variant>, HashSet<Defines>>;
static LISTED: Mutex<Option<Listed>> = Mutex::new(None);

/// The implementation of a kernel at a tier, if that lists the specialisation among its variants: the static stages would never
/// have seen another.
pub(super) fn listed(spec: &'static KernelSpec, tier: Tier, defines: &Defines) -> Result<&'static TierSpec> {
    let lists = |tier: &&TierSpec| {
        let mut listed = LISTED.lock().unwrap_or_else(PoisonError::into_inner);
        let all = listed.get_or_insert_default().entry(tier.variants);
        all.or_insert_with(|| (tier.variants)().into_iter().map(|v| v.defines).collect()).contains(defines)
    };
    let found = spec.tier(tier).filter(lists);
    found.ok_or_else(|| {
        let kernel = format!("{} [{}]", spec.name, tier.name());
        Error::Compile { kernel, log: format!("not among the tier's declared variants: {defines:?}") }
    })
}

/// Creates the pipelines of a prepared case and returns the specialisations that it uses, of all kernels that it
/// launches.
///
/// # Errors
/// [`Error::Compile`] also for a specialisation that its tier does not list among its variants.
pub(crate) fn load(gpu: &Gpu, tier: Option<Tier>, prepared: &Prepared) -> Result<Vec<Specialisation>> {
    let planned = dry_run(gpu, tier, prepared)?.pipelines;
    let mut used = Vec::new();
    for (spec, key) in &planned {
        listed(spec, key.tier, &key.defines)?;
        used.push((spec.name, key.tier, key.defines.clone()));
    }
    gpu.0.pipelines.compile_all(gpu, planned)?;
    Ok(used)
}

/// (figure, bound, complaint).
fn compare(gpu: &Gpu, check: &Check) -> Result<(f64, f64, Option<String>)> {
    let bytes = gpu.read_with_tail(&check.output)?;
    let used = check.output.bytes() as usize;
    let mut got = decode(&check.output, &bytes[..used]);
    if let Some(at) = &check.at {
        got = at.iter().map(|&i| got[i]).collect();
    }
    let want = (check.want)();
    let tolerance = match check.rule {
        Rule::Normalised(bound) => bound,
        Rule::Exact => 0.0,
    };
    if got.len() != want.len() {
        let why = format!("the twin gives {} elements, the tensor has {}", want.len(), got.len());
        return Ok((f64::NAN, tolerance, Some(why)));
    }
    let guard = bytes[used..].iter().position(|&b| b != POISON);
    // Only poisoned outputs have a guard zone; a tensor that was input too ends in the allocation's rounding.
    let guarded = bytes.len() - used >= crate::kernel::GUARD;
    if let (true, Some(at)) = (guarded, guard) {
        return Ok((f64::NAN, tolerance, Some(format!("wrote past the end, {at} bytes behind it"))));
    }
    if guarded && let Some(why) = strays(check, &bytes[..used], &want) {
        return Ok((f64::NAN, tolerance, Some(why)));
    }
    let first_bad = |bad: &dyn Fn(f64, f64) -> bool| {
        let at = got.iter().zip(&want).position(|(&g, &w)| bad(g, w))?;
        let count = got.iter().zip(&want).filter(|(g, w)| bad(**g, **w)).count();
        let place = unflatten(check.at.as_ref().map_or(at, |all| all[at]), check.output.shape());
        Some(format!("{count} of {} wrong, first {place:?}: {} for {}", got.len(), got[at], want[at]))
    };
    match check.rule {
        Rule::Exact => {
            let why = first_bad(&|g, w| g != w);
            Ok((f64::from(u8::from(why.is_some())), 0.0, why))
        }
        Rule::Normalised(bound) => {
            if let Some(why) = first_bad(&|g, w| !g.is_finite() && w.is_finite()) {
                return Ok((f64::NAN, bound, Some(format!("NaN, infinite or not written: {why}"))));
            }
            let square = |v: f64| v * v;
            let off: f64 = got.iter().zip(&want).map(|(g, w)| square(g - w)).sum();
            let norm: f64 = want.iter().map(|w| square(*w)).sum();
            // Where the twin is all zero, the absolute error counts.
            let error = if norm > 0.0 { (off / norm).sqrt() } else { off.sqrt() };
            let scale = (norm / want.len().max(1) as f64).sqrt().max(f64::MIN_POSITIVE);
            let why = (error > bound || error.is_nan())
                .then(|| first_bad(&|g, w| (g - w).abs() > bound * scale.max(w.abs())).unwrap_or_default());
            Ok((error, bound, why))
        }
    }
}

/// What is wrong with elements of a poisoned output that the twin does not give: one that was not to be written, or one that was and is not.
fn strays(check: &Check, bytes: &[u8], want: &[f64]) -> Option<String> {
    let (written, size) = (&check.written, check.output.dtype().size());
    let poisoned = |i: &usize| bytes[i * size..][..size].iter().all(|&b| b == POISON);
    let place = |i| unflatten(i, check.output.shape());
    let outside = (0..written.start).chain(written.end..check.output.len());
    if let Some(at) = outside.into_iter().find(|i| !poisoned(i)) {
        return Some(format!("wrote {:?}, which it was not to write", place(at)));
    }
    // Any bits may be an exact result, and not a number one that is none.
    let telling = check.rule != Rule::Exact && want.iter().all(|w| w.is_finite());
    let at = check.at.as_ref().filter(|_| telling).and_then(|_| written.clone().find(|i| poisoned(i)))?;
    Some(format!("not written: {:?}", place(at)))
}

fn decode(tensor: &Tensor, bytes: &[u8]) -> Vec<f64> {
    match tensor.dtype() {
        DType::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(f64::from).collect(),
        DType::F16 => bytemuck::pod_collect_to_vec::<u8, f16>(bytes).into_iter().map(f64::from).collect(),
        DType::Bf16 => bytemuck::pod_collect_to_vec::<u8, bf16>(bytes).into_iter().map(f64::from).collect(),
        DType::U32 => bytemuck::pod_collect_to_vec::<u8, u32>(bytes).into_iter().map(f64::from).collect(),
        DType::I32 => bytemuck::pod_collect_to_vec::<u8, i32>(bytes).into_iter().map(f64::from).collect(),
    }
}

fn unflatten(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&d| {
            let i = at % d.max(1);
            at /= d.max(1);
            i
        })
        .collect();
    place.reverse();
    place
}

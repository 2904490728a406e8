//! Takes work items through the stages and tells of every step and result.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bench::measure_prepared;
use super::compare::{Outcome, compare_all, dry_run, load, missing, run, skipped};
use super::cover::covering;
use super::msl_text::reflect_msl;
use super::report::Perf;
use super::translate::{Reflection, disagreements, parse, translate};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::kernel::{Case, KernelSpec, Level, Prepared, Tier, TierSpec, compose};

/// A stage of the audit; see the [module documentation](super).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Compose,
    Validate,
    Translate,
    Load,
    Run,
    Correct,
    Perf,
}

/// Which cases a part of the audit takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The static stages, then the quick cases.
    Quick,
    /// The static stages, then the quick and the full cases.
    Full,
    /// The cases of real shape: compared and timed.
    Perf,
}

/// One step of an audit: the static stages of a tier, or a case on it.
pub struct Item {
    pub spec: &'static KernelSpec,
    pub tier: &'static TierSpec,
    pub case: Option<Case>,
}

/// The items of `part` for these kernels and tiers, always in the same order.
pub fn items(part: Part, work: &[(&'static KernelSpec, Tier)]) -> Vec<Item> {
    let wanted = |case: &Case| match part {
        Part::Quick => case.level == Level::Quick,
        Part::Full => case.level != Level::Perf,
        Part::Perf => case.level == Level::Perf,
    };
    let mut all = Vec::new();
    for &(spec, tier) in work {
        let Some(tier) = spec.tier(tier) else { continue };
        if part != Part::Perf {
            all.push(Item { spec, tier, case: None });
        }
        let cases = (spec.cases)().into_iter().filter(wanted);
        all.extend(cases.map(|case| Item { spec, tier, case: Some(case) }));
    }
    all
}

/// How to go through items.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Times the cases.
    pub perf: bool,
    /// Skips cases that were timed at another tier: the better tiers must come first.
    pub best: bool,
    /// Compiles the pipelines of one case at a time, to find the one that brings the process down.
    pub serial: bool,
    /// Bytes per second of a copy, for the percentages.
    pub copy_bandwidth: Option<f64>,
    /// Cases that have not begun by then are not reached.
    pub deadline: Option<Instant>,
}

/// What the audit is about to do, so that a supervisor can tell a hang from slow work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Index among the items.
    pub item: usize,
    pub kernel: String,
    pub tier: String,
    pub dtype: String,
    pub case: String,
    pub stage: Stage,
    /// Whether it concerns several cases, of which this is the first.
    pub batch: bool,
    /// Seconds that this may take at the very most.
    pub limit: u64,
}

/// What became of a case.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Correct {
        error: f64,
        tolerance: f64,
    },
    /// JSON has no NaN: an output that is not a number has no error figure.
    Wrong {
        error: Option<f64>,
        tolerance: f64,
        why: String,
    },
    Skipped(String),
    Failed(Stage, String),
    /// There was no time for it, or its tier was given up.
    Unreached,
}

/// The result of a case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// Index among the items.
    pub item: usize,
    pub kernel: String,
    pub tier: String,
    pub dtype: String,
    pub case: String,
    pub verdict: Verdict,
    /// Hashes of the specialisations that it loaded.
    pub loaded: Vec<u64>,
    pub perf: Option<Perf>,
}

/// What a supervised audit process reports, one JSON object a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message {
    Step(Step),
    Finished(Box<Finished>),
}

/// Cases whose pipelines are compiled together.
const BATCH: usize = 16;
/// A launch of more work than this would keep a software adapter busy for minutes.
const SOFTWARE_FLOPS: u64 = 4_000_000_000;

/// Seconds for a stage. Of a hung GPU one wants to hear soon; software adapters on busy machines are slow. Operands and
/// references are made on the host.
fn limit(gpu: &Gpu, stage: Stage, batch: bool) -> u64 {
    match stage {
        Stage::Compose | Stage::Validate | Stage::Translate => 600,
        _ if gpu.caps().device_type == wgpu::DeviceType::Cpu => 600,
        Stage::Load if batch => 120,
        Stage::Load => 30,
        Stage::Correct => 60,
        Stage::Run | Stage::Perf => 20,
    }
}

/// Which of a tier's variants go through the static stages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coverage {
    Every,
    /// Enough for every combination of the values of three defines: a tenth of those of the matrix kernels.
    Combinations,
}

/// Composes, validates and translates the variants of a tier. MSL is not translated; of it the arguments are compared. Returns
/// how many variants there are in all.
///
/// # Errors
/// The stage that the first bad variant fails in, and why.
pub fn static_stages(
    spec: &KernelSpec,
    tier: &TierSpec,
    coverage: Coverage,
) -> Result<usize, (Stage, String)> {
    let variants = (tier.variants)();
    let count = variants.len();
    let chosen = match coverage {
        Coverage::Every => variants,
        Coverage::Combinations => covering(variants),
    };
    chosen.par_iter().try_for_each(|variant| {
        let at = |stage| move |error: Error| (stage, error.to_string());
        let disagree = |shader: &Reflection| match disagreements(spec, variant, shader).into_iter().next() {
            Some(first) => Err((Stage::Validate, format!("{:?}: {first}", variant.defines))),
            None => Ok(()),
        };
        if tier.tier == Tier::Msl {
            return disagree(&reflect_msl(spec, tier, variant).map_err(at(Stage::Validate))?);
        }
        let composed = compose(tier.path, tier.source, &variant.defines).map_err(at(Stage::Compose))?;
        let parsed = parse(spec, tier, variant, &composed).map_err(at(Stage::Validate))?;
        disagree(&parsed.reflection)?;
        translate(spec, tier, variant, &parsed).map(drop).map_err(at(Stage::Translate))
    })?;
    Ok(count)
}

/// Goes through `items[from..to]`. `message` hears of every step and of every case's result.
///
/// # Errors
/// [`Error::DeviceLost`], which ends the audit: whoever goes on needs a new device. Other failures are results.
pub fn audit_items(
    gpu: &Gpu,
    items: &[Item],
    (from, to): (usize, usize),
    options: &Options,
    message: &mut dyn FnMut(Message),
) -> Result<()> {
    let mut audit = Audit { gpu, options, message, refused: None, timed: HashSet::new() };
    let to = to.min(items.len());
    let mut at = from;
    while at < to {
        let item = &items[at];
        if item.case.is_none() {
            audit.step(item, at, Stage::Translate, false);
            let coverage = if gpu.checked() { Coverage::Every } else { Coverage::Combinations };
            audit.refused = static_stages(item.spec, item.tier, coverage).err();
            at += 1;
            continue;
        }
        // Real shapes take much memory, so one at a time.
        let most = if options.serial || options.perf { 1 } else { BATCH };
        let like =
            |i: &Item| i.spec.name == item.spec.name && i.tier.tier == item.tier.tier && i.case.is_some();
        let count = items[at..to].iter().take(most).take_while(|i| like(i)).count();
        audit.batch(&items[at..at + count], at)?;
        at += count;
    }
    Ok(())
}

struct Audit<'a> {
    gpu: &'a Gpu,
    options: &'a Options,
    message: &'a mut dyn FnMut(Message),
    /// Why the tier's shaders did not pass the static stages.
    refused: Option<(Stage, String)>,
    /// Cases that have been timed at some tier.
    timed: HashSet<(&'static str, &'static str, String)>,
}

impl Audit<'_> {
    fn step(&mut self, item: &Item, index: usize, stage: Stage, batch: bool) {
        let (dtype, case) = item.case.as_ref().map_or(("", "every variant"), |c| (c.dtype, &c.label));
        (self.message)(Message::Step(Step {
            item: index,
            kernel: item.spec.name.into(),
            tier: item.tier.tier.name().into(),
            dtype: dtype.into(),
            case: case.into(),
            stage,
            batch,
            limit: limit(self.gpu, stage, batch),
        }));
    }

    fn finish(&mut self, finished: Finished) {
        (self.message)(Message::Finished(Box::new(finished)));
    }

    /// Cases of one tier: prepared and compiled together, run and compared one by one.
    fn batch(&mut self, items: &[Item], first: usize) -> Result<()> {
        let Some(item) = items.first() else { return Ok(()) };
        let tier = item.tier.tier;
        let done = |case: &Case| self.timed.contains(&(item.spec.name, case.dtype, case.label.clone()));
        let all = if self.options.best && item.case.as_ref().is_some_and(done) {
            Some(Verdict::Skipped("timed at a better tier".into()))
        } else if self.options.deadline.is_some_and(|end| Instant::now() >= end) {
            Some(Verdict::Unreached)
        } else if let Some((stage, why)) = &self.refused {
            Some(Verdict::Failed(*stage, why.clone()))
        } else {
            missing(self.gpu, tier).map(Verdict::Skipped)
        };
        if let Some(verdict) = all {
            let of = |(i, item)| Finished { verdict: verdict.clone(), ..Finished::of(item, first + i) };
            items.iter().enumerate().map(of).for_each(|finished| self.finish(finished));
            return Ok(());
        }
        self.step(item, first, Stage::Load, items.len() > 1);
        let prepare = |item: &Item| item.case.as_ref().map(|case| (case.prepare)(self.gpu, 1));
        let prepared: Vec<_> = items.iter().filter_map(prepare).collect();
        if items.len() > 1 {
            let planned = prepared.iter().flatten().filter_map(|p| dry_run(self.gpu, Some(tier), p).ok());
            let pipelines = planned.flat_map(|planned| planned.pipelines).collect();
            // What does not compile is told of the case that needs it.
            let _ = self.gpu.0.pipelines.compile_all(self.gpu, pipelines);
        }
        for (i, (item, prepared)) in items.iter().zip(prepared).enumerate() {
            self.case(item, first + i, prepared)?;
        }
        Ok(())
    }

    fn case(&mut self, item: &Item, index: usize, prepared: Result<Prepared>) -> Result<()> {
        let mut loaded = Vec::new();
        let mut perf = None;
        let verdict = match prepared.and_then(|p| self.verdict(item, index, &p, &mut loaded, &mut perf)) {
            Ok(verdict) => verdict,
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(error) => {
                let stage = if matches!(error, Error::Compile { .. }) { Stage::Load } else { Stage::Run };
                match skipped(error) {
                    Ok(why) => Verdict::Skipped(why),
                    Err(error) => Verdict::Failed(stage, error.to_string()),
                }
            }
        };
        if let (Some(case), true) = (&item.case, perf.is_some()) {
            self.timed.insert((item.spec.name, case.dtype, case.label.clone()));
        }
        self.finish(Finished { verdict, loaded, perf, ..Finished::of(item, index) });
        Ok(())
    }

    fn verdict(
        &mut self,
        item: &Item,
        index: usize,
        prepared: &Prepared,
        loaded: &mut Vec<u64>,
        perf: &mut Option<Perf>,
    ) -> Result<Verdict> {
        let (gpu, tier) = (self.gpu, Some(item.tier.tier));
        let software = gpu.caps().device_type == wgpu::DeviceType::Cpu;
        if self.options.perf && software && prepared.cost.flops > SOFTWARE_FLOPS {
            return Ok(Verdict::Skipped("too much for a software adapter".into()));
        }
        for (kernel, tier, defines) in load(gpu, tier, prepared)? {
            if (kernel, tier) == (item.spec.name, item.tier.tier) {
                let mut hasher = DefaultHasher::new();
                defines.hash(&mut hasher);
                loaded.push(hasher.finish());
            }
        }
        self.step(item, index, Stage::Run, false);
        run(gpu, tier, prepared)?;
        self.step(item, index, Stage::Correct, false);
        let verdict = match compare_all(gpu, prepared)? {
            Outcome::Correct { error, tolerance } => Verdict::Correct { error, tolerance },
            Outcome::Wrong { error, tolerance, why } => {
                Verdict::Wrong { error: Some(error).filter(|e| e.is_finite()), tolerance, why }
            }
            Outcome::Skipped(why) => Verdict::Skipped(why),
        };
        if self.options.perf && matches!(verdict, Verdict::Correct { .. }) {
            self.step(item, index, Stage::Perf, false);
            match measure_prepared(gpu, tier, prepared) {
                Ok(timing) => {
                    let label = item.case.as_ref().map_or("", |case| &case.label);
                    *perf = Some(Perf::new(label, &timing, self.options.copy_bandwidth));
                }
                Err(error @ Error::DeviceLost { .. }) => return Err(error),
                Err(error) => return Ok(Verdict::Failed(Stage::Perf, error.to_string())),
            }
        }
        Ok(verdict)
    }
}

impl Finished {
    /// A case that was not reached.
    pub fn of(item: &Item, index: usize) -> Finished {
        let (dtype, label) = item.case.as_ref().map_or(("", ""), |case| (case.dtype, &case.label));
        Finished {
            item: index,
            kernel: item.spec.name.into(),
            tier: item.tier.tier.name().into(),
            dtype: dtype.into(),
            case: label.into(),
            verdict: Verdict::Unreached,
            loaded: Vec::new(),
            perf: None,
        }
    }
}

//! Takes one tier of a kernel through all stages and reports a row for each dtype.

use std::collections::HashSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bench::measure_case;
use super::compare::{Outcome, run_noting, skipped};
use super::cover::covering;
use super::report::{Cases, Perf, Row, State};
use super::translate::{disagreements, parse, translate};
use crate::device::Gpu;
use crate::error::Error;
use crate::kernel::{Case, KernelSpec, Level, Tier, TierSpec, compose};

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

/// How much to audit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only the quick cases.
    pub quick: bool,
    /// Times the cases of real shape.
    pub perf: bool,
    /// Compares even those cases with the reference that take it minutes.
    pub thorough: bool,
    /// Bytes per second of a copy, for the percentages.
    pub copy_bandwidth: Option<f64>,
}

/// What the audit is about to do, so that a supervisor can tell a hang from slow work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub tier: String,
    pub dtype: String,
    pub case: String,
    pub stage: Stage,
    /// Seconds that this may take at the very most.
    pub limit: u64,
}

/// What a supervised audit process reports, one JSON object a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message {
    Step(Step),
    Row(Box<Row>),
}

/// Seconds for one case. Software adapters on busy machines are slow, so this is generous.
const CASE_LIMIT: u64 = 120;
/// Seconds for a case of real shape, its reference included.
const PERF_LIMIT: u64 = 600;
/// The reference runs plain loops in f64; above this much work the case is timed but not compared.
const COMPARE_FLOPS: u64 = 10_000_000_000;

/// A launch of more work than this would keep a software adapter busy for minutes.
const SOFTWARE_FLOPS: u64 = 4_000_000_000;

/// Composes, validates and translates the variants of a tier: as many as are needed for every combination of the values of three
/// defines. Returns how many there are in all.
///
/// # Errors
/// The stage that the first bad variant fails in, and why.
pub fn static_stages(spec: &KernelSpec, tier: &TierSpec) -> Result<usize, (Stage, String)> {
    if tier.tier == Tier::Msl {
        return Ok(0); // not WGSL: Metal compiles it at load
    }
    let variants = (tier.variants)();
    let count = variants.len();
    covering(variants).par_iter().try_for_each(|variant| {
        let at = |stage| move |error: Error| (stage, error.to_string());
        compose(tier.path, tier.source, &variant.defines).map_err(at(Stage::Compose))?;
        let parsed = parse(spec, tier, variant).map_err(at(Stage::Validate))?;
        if let Some(first) = disagreements(spec, variant, &parsed.reflection).into_iter().next() {
            return Err((Stage::Validate, format!("{:?}: {first}", variant.defines)));
        }
        translate(spec, tier, variant, &parsed).map(drop).map_err(at(Stage::Translate))
    })?;
    Ok(count)
}

/// Audits one tier. `message` hears of every step and of every finished row.
pub fn audit_tier(
    gpu: &Gpu,
    spec: &'static KernelSpec,
    tier: &TierSpec,
    options: &Options,
    message: &mut dyn FnMut(Message),
) {
    let wanted = |case: &Case| match case.level {
        Level::Quick => true,
        Level::Full => !options.quick,
        Level::Perf => options.perf,
    };
    let cases: Vec<Case> = (spec.cases)().into_iter().filter(wanted).collect();
    let mut dtypes: Vec<&'static str> = Vec::new();
    for case in &cases {
        if !dtypes.contains(&case.dtype) {
            dtypes.push(case.dtype);
        }
    }
    let step = |dtype: &str, case: &str, stage, limit| {
        let (tier, dtype, case) = (tier.tier.name().into(), dtype.into(), case.into());
        Message::Step(Step { tier, dtype, case, stage, limit })
    };
    message(step("", "every variant", Stage::Translate, PERF_LIMIT));
    let shaders = static_stages(spec, tier);
    for dtype in dtypes {
        let mut audit = Audit { gpu, spec, tier: tier.tier, options, row: Row::new(spec, tier.tier, dtype) };
        audit.row.variants = (tier.variants)().len();
        let missing = tier.tier.needs().filter(|c| !gpu.caps().has(*c));
        match (&shaders, missing) {
            (Err((stage, why)), _) => audit.row.fail(*stage, why),
            (Ok(_), Some(capability)) => {
                let why = format!("needs {}: {}", capability.name(), gpu.caps().why_missing(capability));
                audit.row.state = State::Unavailable;
                audit.row.reason = Some(why);
            }
            (Ok(_), None) => {
                audit.cases(cases.iter().filter(|case| case.dtype == dtype), &mut |case, stage, limit| {
                    message(step(dtype, case, stage, limit));
                });
            }
        }
        message(Message::Row(Box::new(audit.row)));
    }
}

/// One row in the making.
struct Audit<'a> {
    gpu: &'a Gpu,
    spec: &'static KernelSpec,
    tier: Tier,
    options: &'a Options,
    row: Row,
}

impl Audit<'_> {
    fn cases<'c>(&mut self, cases: impl Iterator<Item = &'c Case>, step: &mut dyn FnMut(&str, Stage, u64)) {
        let mut loaded = HashSet::new();
        let mut first_skip = None;
        for case in cases {
            let perf = case.level == Level::Perf;
            self.row.cases.total += 1;
            step(&case.label, Stage::Run, CASE_LIMIT);
            let flops = if perf { (case.prepare)(self.gpu, 1).map_or(0, |p| p.cost.flops) } else { 0 };
            if self.gpu.caps().device_type == wgpu::DeviceType::Cpu && flops > SOFTWARE_FLOPS {
                self.row.cases.skipped += 1;
                first_skip.get_or_insert_with(|| format!("{}: too much for a software adapter", case.label));
                continue;
            }
            step(&case.label, Stage::Correct, if perf { PERF_LIMIT } else { CASE_LIMIT });
            let outcome = if flops > COMPARE_FLOPS && !self.options.thorough {
                Ok(None)
            } else {
                run_noting(self.gpu, Some(self.tier), case, &mut |(kernel, tier, defines)| {
                    if (kernel, tier) == (self.spec.name, self.tier) {
                        loaded.insert(defines);
                    }
                })
                .map(Some)
            };
            let compared = matches!(outcome, Ok(Some(_)));
            match outcome {
                Ok(None) => {}
                Ok(Some(Outcome::Correct { error, tolerance })) => self.row.correct(error, tolerance),
                Ok(Some(Outcome::Wrong { error, tolerance, why })) => {
                    self.row.wrong(error, tolerance, &format!("{}: {why}", case.label));
                    continue;
                }
                Ok(Some(Outcome::Skipped(why))) => {
                    self.row.cases.skipped += 1;
                    first_skip.get_or_insert(why);
                    continue;
                }
                Err(error) => {
                    self.row.fail(stage_of(&error), &format!("{}: {error}", case.label));
                    if matches!(error, Error::DeviceLost { .. }) {
                        break;
                    }
                    continue;
                }
            }
            if perf {
                step(&case.label, Stage::Perf, PERF_LIMIT);
                match measure_case(self.gpu, Some(self.tier), case) {
                    Ok(timing) => {
                        let copy = self.options.copy_bandwidth;
                        self.row.perf.push(Perf::new(&case.label, &timing, copy, compared));
                    }
                    Err(error) => match skipped(error) {
                        Ok(why) => {
                            self.row.cases.skipped += 1;
                            first_skip.get_or_insert(why);
                        }
                        Err(error) => self.row.fail(Stage::Perf, &format!("{}: {error}", case.label)),
                    },
                }
            }
        }
        self.row.loaded = loaded.len();
        if let (None, Some(why)) = (&self.row.reason, first_skip) {
            self.row.reason = Some(why);
        }
        if self.row.state == State::Correct && self.row.cases.correct == 0 && self.row.perf.is_empty() {
            self.row.state = State::Unavailable;
        }
    }
}

fn stage_of(error: &Error) -> Stage {
    if matches!(error, Error::Compile { .. }) { Stage::Load } else { Stage::Run }
}

impl Row {
    fn new(spec: &KernelSpec, tier: Tier, dtype: &str) -> Row {
        Row {
            family: spec.family.into(),
            kernel: spec.name.into(),
            tier: tier.name().into(),
            dtype: dtype.into(),
            variants: 0,
            loaded: 0,
            cases: Cases::default(),
            error: None,
            tolerance: None,
            state: State::Correct,
            reason: None,
            perf: Vec::new(),
        }
    }

    /// Keeps the case that came nearest to its tolerance.
    fn correct(&mut self, error: f64, tolerance: f64) {
        self.cases.correct += 1;
        let share = |e: f64, t: f64| if t > 0.0 { e / t } else { e };
        let worst = self.error.zip(self.tolerance).map(|(e, t)| share(e, t));
        if self.state == State::Correct && worst.is_none_or(|w| share(error, tolerance) >= w) {
            (self.error, self.tolerance) = (Some(error), Some(tolerance));
        }
    }

    fn wrong(&mut self, error: f64, tolerance: f64, why: &str) {
        self.cases.failed += 1;
        if self.state == State::Correct {
            // JSON has no NaN: an output that is not a number has no error figure.
            (self.error, self.tolerance) = (Some(error).filter(|e| e.is_finite()), Some(tolerance));
            self.state = State::Wrong;
            self.reason = Some(why.into());
        }
    }

    fn fail(&mut self, stage: Stage, why: &str) {
        self.cases.failed += 1;
        if self.state != State::Wrong && !matches!(self.state, State::Failed(_)) {
            self.state = State::Failed(stage);
            self.reason = Some(why.into());
        }
    }

    /// The row of a process that ended in the middle of `step`.
    pub fn lost(spec: &KernelSpec, step: &Step, state: State, why: &str) -> Row {
        let tier = Tier::parse(&step.tier).unwrap_or(Tier::Base);
        let mut row = Row::new(spec, tier, &step.dtype);
        row.variants = spec.tier(tier).map_or(0, |t| (t.variants)().len());
        row.state = state;
        row.cases.failed = 1;
        let stage = format!("{:?}", step.stage).to_lowercase();
        row.reason = Some(format!("{why} (stage {stage}, case {})", step.case));
        row
    }
}

impl Cases {
    /// `12`, `10/12` where some were skipped or failed.
    pub(super) fn text(&self) -> String {
        if self.correct == self.total {
            self.total.to_string()
        } else {
            format!("{}/{}", self.correct, self.total)
        }
    }
}

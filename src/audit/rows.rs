//! Rows, one for each kernel × tier × dtype, made of the results of their cases.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::report::Perf;
use super::stages::{Finished, Stage, Step, Verdict};
use crate::kernel::{KernelSpec, Tier};

/// What became of one kernel × tier × dtype.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All cases that this adapter can run are right.
    Correct,
    /// This adapter lacks a capability; the reason names it.
    Unavailable,
    /// No case was reached in the time that was given.
    Unreached,
    /// An output differs from the reference.
    Wrong,
    /// The stage that failed.
    Failed(Stage),
    /// The time limit passed.
    Hung,
    /// The process died.
    Crashed,
}

impl State {
    pub fn is_failure(self) -> bool {
        !matches!(self, State::Correct | State::Unavailable | State::Unreached)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Failed(stage) => write!(f, "fails: {}", format!("{stage:?}").to_lowercase()),
            State::Unreached => f.write_str("not reached"),
            state => f.write_str(&format!("{state:?}").to_lowercase()),
        }
    }
}

/// Numbers of cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cases {
    pub total: usize,
    pub correct: usize,
    pub skipped: usize,
    pub failed: usize,
    pub unreached: usize,
}

impl Cases {
    /// `12`, `10/12` where some were skipped, failed or not reached.
    pub(super) fn text(&self) -> String {
        if self.correct == self.total {
            self.total.to_string()
        } else {
            format!("{}/{}", self.correct, self.total)
        }
    }
}

/// One row of the audit: a kernel, a tier, a dtype.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    pub family: String,
    pub kernel: String,
    pub tier: String,
    pub dtype: String,
    /// Variants of the tier; all went through compose, validate and translate.
    pub variants: usize,
    /// Variants that this row's cases loaded and ran.
    pub loaded: usize,
    pub cases: Cases,
    /// Normalised error of the case that came nearest to its tolerance.
    pub error: Option<f64>,
    pub tolerance: Option<f64>,
    pub state: State,
    /// The missing capability, or what went wrong.
    pub reason: Option<String>,
    pub perf: Vec<Perf>,
}

/// Rows in the making.
pub struct Rows {
    specs: Vec<&'static KernelSpec>,
    rows: Vec<(Row, HashSet<u64>)>,
}

impl Rows {
    /// For results of these kernels.
    pub fn new(specs: &[&'static KernelSpec]) -> Rows {
        Rows { specs: specs.to_vec(), rows: Vec::new() }
    }

    /// The rows so far, in the order of kernels and tiers.
    pub fn finish(mut self) -> Vec<Row> {
        let place = |row: &Row| {
            let kernel = self.specs.iter().position(|spec| spec.name == row.kernel);
            (kernel, Tier::parse(&row.tier))
        };
        self.rows.sort_by_key(|(row, _)| place(row));
        self.rows.into_iter().map(|(row, _)| row).collect()
    }

    fn row(&mut self, kernel: &str, tier: &str, dtype: &str) -> &mut (Row, HashSet<u64>) {
        let is = |row: &Row| (&*row.kernel, &*row.tier, &*row.dtype) == (kernel, tier, dtype);
        let at = self.rows.iter().position(|(row, _)| is(row)).unwrap_or(self.rows.len());
        if at == self.rows.len() {
            let spec = self.specs.iter().find(|spec| spec.name == kernel);
            let variants = spec.zip(Tier::parse(tier)).and_then(|(spec, tier)| spec.tier(tier));
            let row = Row {
                family: spec.map_or("", |spec| spec.family).into(),
                kernel: kernel.into(),
                tier: tier.into(),
                dtype: dtype.into(),
                variants: variants.map_or(0, |tier| (tier.variants)().len()),
                loaded: 0,
                cases: Cases::default(),
                error: None,
                tolerance: None,
                state: State::Unreached,
                reason: None,
                perf: Vec::new(),
            };
            self.rows.push((row, HashSet::new()));
        }
        &mut self.rows[at]
    }

    /// Takes a case's result in.
    pub fn add(&mut self, finished: Finished) {
        let Finished { kernel, tier, dtype, case, verdict, loaded, perf, .. } = finished;
        let (row, seen) = self.row(&kernel, &tier, &dtype);
        seen.extend(loaded);
        row.loaded = seen.len();
        row.cases.total += 1;
        row.perf.extend(perf);
        match verdict {
            Verdict::Correct { error, tolerance } => row.correct(error, tolerance),
            Verdict::Wrong { error, tolerance, why } => {
                if !row.state.is_failure() {
                    (row.error, row.tolerance) = (error, Some(tolerance));
                }
                row.fail(State::Wrong, format!("{case}: {why}"));
            }
            Verdict::Failed(stage, why) => row.fail(State::Failed(stage), format!("{case}: {why}")),
            Verdict::Skipped(why) => {
                row.cases.skipped += 1;
                if row.state == State::Unreached {
                    row.state = State::Unavailable;
                }
                row.reason.get_or_insert(why);
            }
            Verdict::Unreached => row.cases.unreached += 1,
        }
    }

    /// Notes a case during which the process ended.
    pub fn lost(&mut self, step: &Step, state: State, why: &str) {
        let (row, _) = self.row(&step.kernel, &step.tier, &step.dtype);
        row.cases.total += 1;
        let stage = format!("{:?}", step.stage).to_lowercase();
        row.fail(state, format!("{why} (stage {stage}, case {})", step.case));
    }
}

impl Row {
    /// Keeps the case that came nearest to its tolerance.
    fn correct(&mut self, error: f64, tolerance: f64) {
        self.cases.correct += 1;
        // What launches nothing, as there is nothing to do, proves no kernel.
        if self.state.is_failure() || self.loaded == 0 {
            return;
        }
        self.state = State::Correct;
        let share = |e: f64, t: f64| if t > 0.0 { e / t } else { e };
        let worst = self.error.zip(self.tolerance).map(|(e, t)| share(e, t));
        if worst.is_none_or(|w| share(error, tolerance) >= w) {
            (self.error, self.tolerance) = (Some(error), Some(tolerance));
        }
    }

    /// The first failure tells the state.
    fn fail(&mut self, state: State, why: String) {
        self.cases.failed += 1;
        if !self.state.is_failure() {
            self.state = state;
            self.reason = Some(why);
        }
    }
}

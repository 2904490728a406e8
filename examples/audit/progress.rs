//! What is shown while the audit goes on: a bar on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use wgmarlin::audit::{Finished, State, Step, Verdict, significant};

pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

/// A plain line after so many cases of which there is nothing to say.
const EVERY: u64 = 500;

impl Progress {
    pub fn new(total: usize) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
        bar.set_length(total as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Progress { bar, terminal }
    }

    pub fn step(&self, step: &Step) {
        self.bar.set_message(format!("{} {} {} {}", step.kernel, step.tier, step.dtype, step.case));
    }

    pub fn finished(&self, finished: &Finished) {
        self.bar.inc(1);
        let Finished { kernel, tier, dtype, case, verdict, perf, .. } = finished;
        let what = match (verdict, perf) {
            (Verdict::Wrong { .. }, _) => "wrong".to_string(),
            (Verdict::Failed(stage, _), _) => State::Failed(*stage).to_string(),
            (_, Some(perf)) => format!("{} µs", significant(perf.micros)),
            _ => {
                let done = self.bar.position();
                if !self.terminal && done.is_multiple_of(EVERY) {
                    eprintln!("{done}/{} cases", self.bar.length().unwrap_or(0));
                }
                return;
            }
        };
        self.line(format!("{kernel} {tier} {dtype} {case}: {what}"));
    }

    pub fn lost(&self, step: &Step, state: State) {
        self.bar.inc(1);
        self.line(format!("{} {} {} {}: {state}", step.kernel, step.tier, step.dtype, step.case));
    }

    fn line(&self, text: String) {
        if self.terminal { self.bar.println(text) } else { eprintln!("{text}") }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

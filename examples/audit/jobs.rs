//! Runs jobs in child processes, several at a time where nothing is timed, and outlives crashes and hangs.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wgmarlin::audit::{Ended, Finished, Item, Message, Part, Rows, Stage, State, Step, items, supervise};

use super::peers::Peers;
use super::progress::Progress;
use super::{Cli, Failure, Unit};

/// Seconds for opening the device and its canaries.
const START_LIMIT: u64 = 60;
/// Cases of a job, so that a kernel of many keeps several processes busy.
const JOB_CASES: usize = 256;
/// A tier that takes its process down this often is given up: it would cost a time limit a case.
const MOST_LOSSES: usize = 2;

/// The items of some kernels and tiers in the order in which they are audited. Of those that are timed, first come the
/// cases that are compared with a peer or a target, and the better tiers.
pub fn ordered(part: Part, work: &[Unit]) -> Result<Vec<Item>, Failure> {
    let mut all = items(part, work);
    if part == Part::Perf {
        let peers = Peers::read()?;
        let plain = |item: &Item| {
            item.case.as_ref().is_none_or(|case| !peers.know(item.spec.name, case.dtype, &case.label))
        };
        all.sort_by_key(|item| (plain(item), Reverse(item.tier.tier)));
    }
    Ok(all)
}

/// A range of the items of some kernels and tiers.
#[derive(Clone)]
pub struct Job {
    part: Part,
    work: Vec<Unit>,
    from: usize,
    to: usize,
    /// Without other processes beside it.
    alone: bool,
}

impl Job {
    /// Everything in one job.
    pub fn whole(part: Part, work: &[Unit]) -> Vec<Job> {
        vec![Job { part, work: work.to_vec(), from: 0, to: items(part, work).len(), alone: true }]
    }

    /// Jobs of one tier each, and of not too many cases; the large ones first.
    pub fn split(part: Part, work: &[Unit]) -> Vec<Job> {
        let mut all = Vec::new();
        for &unit in work {
            let count = items(part, &[unit]).len();
            let ranges = (0..count).step_by(JOB_CASES).map(|from| (from, (from + JOB_CASES).min(count)));
            all.extend(ranges.map(|(from, to)| Job { part, work: vec![unit], from, to, alone: false }));
        }
        all.sort_by_key(|job| Reverse(job.to - job.from));
        all
    }

    pub fn cases(&self) -> usize {
        let all = items(self.part, &self.work);
        all[self.from..self.to].iter().filter(|item| item.case.is_some()).count()
    }
}

/// What the workers share.
pub struct Shared<'a> {
    pub cli: &'a Cli,
    pub bandwidth: Option<f64>,
    pub deadline: Option<Instant>,
    pub progress: Progress,
    pub rows: Mutex<Rows>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    /// Runs all jobs, `processes` at a time. A reset of the GPU takes all processes that use it, so jobs that were lost
    /// while others ran go on alone, at the end.
    pub fn run(&self, jobs: Vec<Job>, processes: usize) -> Result<(), Failure> {
        let processes = processes.min(jobs.len());
        let (queue, again) = (Mutex::new(VecDeque::from(jobs)), Mutex::new(Vec::new()));
        let work = || -> Result<(), String> {
            loop {
                let Some(mut job) = lock(&queue).pop_front() else { return Ok(()) };
                job.alone |= processes == 1;
                if let Some(rest) = self.job(job).map_err(|e| e.to_string())? {
                    lock(&again).push(rest);
                }
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..processes).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|w| w.join().map_err(|_| "a worker panicked".to_string())?)
        })?;
        for job in again.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.job(Job { alone: true, ..job })?;
        }
        Ok(())
    }

    /// Runs one job to its end, in as many processes as that takes; or returns what is left of it, to be tried alone.
    fn job(&self, mut job: Job) -> Result<Option<Job>, Failure> {
        let all = ordered(job.part, &job.work)?;
        let (mut serial, mut losses) = (false, Vec::new());
        while job.from < job.to {
            let mut at = opening(&all[job.from], job.from);
            let (mut spoke, mut next) = (false, job.from);
            let ended = supervise(&mut self.command(&job, serial)?, self.limit(&at), |line| {
                match serde_json::from_str(line) {
                    Ok(Message::Step(step)) => {
                        spoke = true;
                        self.progress.step(&step);
                        next = step.item;
                        at = step;
                    }
                    Ok(Message::Finished(finished)) => {
                        next = finished.item + 1;
                        self.finish(*finished);
                    }
                    Err(_) => log::debug!("{line}"),
                }
                self.limit(&at)
            })?;
            let (state, why) = match ended {
                Ended::Done => return Ok(None),
                Ended::Crashed(why) => (State::Crashed, why),
                Ended::Hung(limit) => (State::Hung, format!("nothing for {} s", limit.as_secs())),
            };
            job.from = next;
            if next > at.item {
                log::warn!("{why}, after the result of {} {}", at.kernel, at.case);
                continue; // nothing was under way
            }
            if !job.alone {
                return Ok(Some(job));
            }
            if at.batch && !serial {
                serial = true; // which of them it is
                continue;
            }
            self.progress.lost(&at, state);
            lock(&self.rows).lost(&at, state, &why);
            job.from += 1;
            let tier = |item: &Item| (item.spec.name, item.tier.tier.name().to_string());
            losses.push(tier(&all[at.item]));
            let lost = losses.iter().filter(|unit| **unit == tier(&all[at.item])).count();
            while job.from < job.to
                && (!spoke || lost >= MOST_LOSSES && tier(&all[job.from]) == tier(&all[at.item]))
            {
                if all[job.from].case.is_some() {
                    self.finish(Finished::of(&all[job.from], job.from));
                }
                job.from += 1;
            }
        }
        Ok(None)
    }

    fn finish(&self, finished: Finished) {
        self.progress.finished(&finished);
        lock(&self.rows).add(finished);
    }

    fn limit(&self, step: &Step) -> Duration {
        Duration::from_secs(self.cli.limit.unwrap_or(step.limit))
    }

    fn command(&self, job: &Job, serial: bool) -> Result<Command, Failure> {
        let cli = self.cli;
        // Without /proc (a chroot) the path is not known, but the name that we were called by may do.
        let program =
            std::env::current_exe().or_else(|e| std::env::args_os().next().map(Into::into).ok_or(e))?;
        let mut command = Command::new(program);
        let part = format!("{:?}", job.part).to_lowercase();
        let work: Vec<_> =
            job.work.iter().map(|(spec, tier)| format!("{}:{}", spec.name, tier.name())).collect();
        let items = format!("{},{}", job.from, job.to);
        command.args(["--child", &part, "--work", &work.join(","), "--items", &items]);
        command.args(serial.then_some("--serial"));
        if cli.best && job.part == Part::Perf {
            command.args(["--perf", "--best"]);
        }
        let left = |end: Instant| end.saturating_duration_since(Instant::now()).as_secs().to_string();
        for (flag, value) in [
            ("--checks", cli.checks.clone()),
            ("--adapter", cli.adapter.clone()),
            ("--fault", cli.fault.clone()),
            ("--copy-bandwidth", self.bandwidth.map(|b| b.to_string())),
            ("--budget", self.deadline.map(left)),
        ] {
            if let Some(value) = value {
                command.args([flag, &value]);
            }
        }
        Ok(command)
    }
}

/// Where a child is before it says anything.
fn opening(item: &Item, index: usize) -> Step {
    let Finished { kernel, tier, dtype, .. } = Finished::of(item, index);
    let case = "opening the device".into();
    Step { item: index, kernel, tier, dtype, case, stage: Stage::Load, batch: false, limit: START_LIMIT }
}

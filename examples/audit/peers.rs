//! What a timing is compared with: other libraries' figures and our own targets, from `docs/peers.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wgmarlin::audit::{Perf, Row};

use super::measured::{Bound, Measured, Peer};

/// The file, which the binary carries; the audit's JSON says the same of the peers.
#[derive(Serialize, Deserialize)]
pub struct Peers {
    /// What the peers ran on, and when.
    pub device: String,
    pub date: String,
    /// Short names of the peers, and what they are.
    pub sources: BTreeMap<String, String>,
    pub method: String,
    #[serde(skip_serializing)]
    cases: Vec<Target>,
}

/// What is known of a case.
#[derive(Deserialize)]
struct Target {
    kernel: String,
    dtype: String,
    case: String,
    must: Option<Figure>,
    goal: Option<Figure>,
    #[serde(default)]
    peers: BTreeMap<String, Figure>,
}

/// A time, said in some way.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Figure {
    Us(f64),
    TflopS(f64),
    /// Share of the measured copy bandwidth.
    CopyPercent(f64),
    /// So many times the time of another case, `kernel dtype case`.
    Times(Relative),
    /// So many times the time of another case, in proportion to their bytes.
    Bytes(Relative),
}

#[derive(Clone, Deserialize)]
struct Relative {
    of: String,
    at_most: f64,
}

impl Peers {
    pub fn read() -> Result<Peers, serde_json::Error> {
        serde_json::from_str(include_str!("../../docs/peers.json"))
    }

    fn target(&self, kernel: &str, dtype: &str, case: &str) -> Option<&Target> {
        self.cases.iter().find(|t| (&*t.kernel, &*t.dtype, &*t.case) == (kernel, dtype, case))
    }

    /// Whether there is anything to compare a case with.
    pub fn know(&self, kernel: &str, dtype: &str, case: &str) -> bool {
        self.target(kernel, dtype, case).is_some()
    }

    /// All timings of the rows beside what they are compared with.
    pub fn compare(&self, rows: &[Row]) -> Vec<Measured> {
        let timed = || rows.iter().flat_map(|row| row.perf.iter().map(move |perf| (row, perf)));
        let best = |name: &str| {
            let is = |row: &Row, perf: &Perf| {
                split(name).is_some_and(|name| name == (&*row.kernel, &*row.dtype, &*perf.case))
            };
            let found = timed().filter(|(row, perf)| is(row, perf)).map(|(_, perf)| perf);
            found.min_by(|a, b| a.micros.total_cmp(&b.micros))
        };
        timed().map(|(row, perf)| self.one(row, perf, &best)).collect()
    }

    fn one<'a>(&self, row: &Row, perf: &Perf, best: &dyn Fn(&str) -> Option<&'a Perf>) -> Measured {
        let micros = |figure: &Figure| match figure {
            Figure::Us(us) => Some(*us),
            Figure::TflopS(rate) => Some(perf.micros * perf.tflop_s / rate),
            Figure::CopyPercent(share) => Some(perf.micros * perf.copy_percent? / share),
            Figure::Times(other) => Some(other.at_most * best(&other.of)?.micros),
            Figure::Bytes(other) => Some(other.at_most * perf.micros * perf.gb_s / best(&other.of)?.gb_s),
        };
        let target = self.target(&row.kernel, &row.dtype, &perf.case);
        let bound = |figure: Option<&Figure>| {
            let us = figure.and_then(micros)?;
            Some(Bound { us, met: perf.micros <= us })
        };
        let peer = |(name, figure): (&String, &Figure)| {
            let us = micros(figure)?;
            Some(Peer { name: name.clone(), us, ratio: us / perf.micros })
        };
        let mut words = perf.case.split(' ');
        let shape = words.next().unwrap_or_default().to_string();
        let named = |word: &&str| wgmarlin::format::Format::ALL.iter().any(|f| f.name() == *word);
        let format = words.find(named).map_or(row.dtype.clone(), |name| match words.next() {
            Some(group) if group.starts_with('g') => format!("{name} {group}"),
            _ => name.to_string(),
        });
        Measured {
            kernel: row.kernel.clone(),
            tier: row.tier.clone(),
            dtype: row.dtype.clone(),
            case: perf.case.clone(),
            shape,
            format,
            us: perf.micros,
            earlier: false,
            gb_s: perf.gb_s,
            tflop_s: perf.tflop_s,
            copy_percent: perf.copy_percent,
            clock: perf.clock.clone(),
            must: bound(target.and_then(|t| t.must.as_ref())),
            goal: bound(target.and_then(|t| t.goal.as_ref())),
            peers: target.map(|t| t.peers.iter().filter_map(peer).collect()).unwrap_or_default(),
        }
    }
}

/// `kernel dtype case`.
fn split(name: &str) -> Option<(&str, &str, &str)> {
    let (kernel, rest) = name.split_once(' ')?;
    let (dtype, case) = rest.split_once(' ')?;
    Some((kernel, dtype, case))
}

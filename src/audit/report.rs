//! Rows, and how they are shown: a table for people, JSON for programs.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};

use super::bench::Timing;
use super::inventory::Entry;
use super::stages::Stage;

/// What became of one kernel × tier × dtype.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All cases that this adapter can run are right.
    Correct,
    /// This adapter lacks a capability; the reason names it.
    Unavailable,
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
        !matches!(self, State::Correct | State::Unavailable)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Failed(stage) => write!(f, "fails: {}", format!("{stage:?}").to_lowercase()),
            state => f.write_str(&format!("{state:?}").to_lowercase()),
        }
    }
}

/// Numbers of cases. Those that are neither correct, skipped nor failed were timed but not compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cases {
    pub total: usize,
    pub correct: usize,
    pub skipped: usize,
    pub failed: usize,
}

/// One timed case.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Perf {
    pub case: String,
    pub micros: f64,
    /// 10⁹ bytes per second of necessary traffic.
    pub gb_s: f64,
    pub tflop_s: f64,
    /// Share of the adapter's copy bandwidth.
    pub copy_percent: Option<f64>,
    /// `timestamps` or `wall clock`.
    pub clock: String,
    /// Whether this very shape was also compared with the reference.
    pub compared: bool,
}

impl Perf {
    pub fn new(case: &str, timing: &Timing, copy_bandwidth: Option<f64>, compared: bool) -> Perf {
        let bytes = timing.cost.bytes as f64 / timing.seconds;
        Perf {
            case: case.into(),
            micros: timing.seconds * 1e6,
            gb_s: bytes / 1e9,
            tflop_s: timing.cost.flops as f64 / timing.seconds / 1e12,
            copy_percent: copy_bandwidth.map(|copy| 100.0 * bytes / copy),
            clock: if timing.timestamps { "timestamps" } else { "wall clock" }.into(),
            compared,
        }
    }

    fn cells(&self) -> [String; 5] {
        [
            format!("{}{}", self.case, if self.compared { "" } else { " (not compared)" }),
            significant(self.micros),
            significant(self.gb_s),
            significant(self.tflop_s),
            self.copy_percent.map_or(String::new(), |p| format!("{p:.0}")),
        ]
    }
}

/// Three significant digits, without an exponent.
fn significant(x: f64) -> String {
    let digits = if x >= 100.0 {
        0
    } else if x >= 10.0 {
        1
    } else if x >= 1.0 {
        2
    } else {
        4
    };
    format!("{x:.digits$}")
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

/// The rows as a table, with the timed cases of a row below each other.
pub fn table(rows: &[Row]) -> String {
    let timed = rows.iter().any(|row| !row.perf.is_empty());
    let mut header = vec!["kernel", "tier", "dtype", "variants", "cases", "error", "tolerance", "state"];
    if timed {
        header.extend(["shape", "µs", "GB/s", "TFLOP/s", "% copy"]);
    }
    header.push("note");
    let mut table = plain(&header);
    for row in rows {
        let figure = |x: Option<f64>| match x {
            None => String::new(),
            Some(0.0) => "exact".into(),
            Some(x) => format!("{x:.1e}"),
        };
        let tolerance = figure(row.tolerance);
        let mut cells = vec![
            row.kernel.clone(),
            row.tier.clone(),
            row.dtype.clone(),
            format!("{}/{}", row.loaded, row.variants),
            row.cases.text(),
            figure(row.error),
            tolerance,
            row.state.to_string(),
        ];
        let note = row.reason.as_deref().map_or(String::new(), first_line);
        if timed {
            cells.extend(row.perf.first().map_or_else(Default::default, Perf::cells));
        }
        cells.push(note);
        table.add_row(cells);
        for perf in row.perf.iter().skip(1) {
            let mut cells = vec![String::new(); 8];
            cells.extend(perf.cells());
            cells.push(String::new());
            table.add_row(cells);
        }
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        if (3..7).contains(&i) || (timed && (9..13).contains(&i)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// The upstream inventory as a table.
pub fn inventory_table(entries: &[Entry]) -> String {
    let mut table = plain(&["upstream file", "entry points", "kernels here", "state", "note"]);
    for entry in entries {
        table.add_row(vec![
            entry.file.name.to_string(),
            entry.file.entry_points.to_string(),
            entry.kernels.join(", "),
            entry.state_text(),
            entry.note(),
        ]);
    }
    table.trim_fmt()
}

pub(super) fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header.to_vec());
    table
}

/// Reasons may hold whole compiler logs.
fn first_line(text: &str) -> String {
    const MOST: usize = 120;
    let line = text.lines().map(str::trim).filter(|l| !l.is_empty()).take(2).collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST { line } else { line.chars().take(MOST - 1).chain(['…']).collect() }
}

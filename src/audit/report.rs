//! How results are shown: a table for people, JSON for programs.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};

use super::bench::Timing;
use super::inventory::Entry;
use super::rows::Row;

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
}

impl Perf {
    pub fn new(case: &str, timing: &Timing, copy_bandwidth: Option<f64>) -> Perf {
        let bytes = timing.cost.bytes as f64 / timing.seconds;
        Perf {
            case: case.into(),
            micros: timing.seconds * 1e6,
            gb_s: bytes / 1e9,
            tflop_s: timing.cost.flops as f64 / timing.seconds / 1e12,
            copy_percent: copy_bandwidth.map(|copy| 100.0 * bytes / copy),
            clock: if timing.timestamps { "timestamps" } else { "wall clock" }.into(),
        }
    }

    fn cells(&self) -> [String; 5] {
        [
            self.case.clone(),
            significant(self.micros),
            significant(self.gb_s),
            significant(self.tflop_s),
            self.copy_percent.map_or(String::new(), |p| format!("{p:.0}")),
        ]
    }
}

/// Three significant digits, without an exponent.
pub fn significant(x: f64) -> String {
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
        let unreached = match row.cases.unreached {
            0 => None,
            n => Some(format!("{n} not reached")),
        };
        let reason = row.reason.as_deref().map(first_line);
        let note = unreached.into_iter().chain(reason).collect::<Vec<_>>().join("; ");
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

fn plain(header: &[&str]) -> Table {
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

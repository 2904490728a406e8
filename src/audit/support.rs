//! Joins the reports of several machines into one table: kernel × tier × device.

use serde::Deserialize;

use super::report::{Row, State, plain};
use crate::kernel::CATALOGUE;

/// The report that `audit --json` writes, as far as the table needs it.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    pub adapter: Adapter,
    pub rows: Vec<Row>,
}

/// The adapter of a report.
#[derive(Clone, Debug, Deserialize)]
pub struct Adapter {
    pub name: String,
    pub backend: String,
    pub driver: String,
}

/// A row for each kernel and tier of the catalogue, a column for each report. A cell counts cases: `12` if all are right,
/// `10/12` if some were skipped, and the first failure where there is one; `–` where the adapter lacks what the tier needs.
pub fn support_table(reports: &[Report]) -> String {
    let machines = reports.iter().map(|r| format!("{} ({})", r.adapter.name, r.adapter.backend));
    let header: Vec<String> =
        ["kernel".to_string(), "tier".to_string()].into_iter().chain(machines).collect();
    let mut table = plain(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for spec in CATALOGUE {
        for tier in spec.tiers.iter().map(|t| t.tier.name()) {
            let cells = reports.iter().map(|report| {
                cell(report.rows.iter().filter(|row| row.kernel == spec.name && row.tier == tier))
            });
            table.add_row([spec.name.to_string(), tier.to_string()].into_iter().chain(cells));
        }
    }
    table.trim_fmt()
}

/// All dtypes of a kernel and tier on one machine.
fn cell<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let (mut correct, mut total, mut any) = (0, 0, false);
    for row in rows {
        if row.state.is_failure() {
            return format!("**{}** ({})", row.state, row.dtype);
        }
        any |= row.state == State::Correct;
        correct += row.cases.correct;
        total += row.cases.total;
    }
    match (any, correct == total) {
        (false, _) => "–".to_string(),
        (true, true) => total.to_string(),
        (true, false) => format!("{correct}/{total}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Cases, Stage};

    fn row(tier: &str, dtype: &str, state: State, correct: usize) -> Row {
        let cases = Cases { total: 4, correct, ..Cases::default() };
        let (family, kernel) = ("norm".into(), "rms_norm".into());
        let (tier, dtype) = (tier.into(), dtype.into());
        let (error, tolerance, reason, perf) = (None, None, None, Vec::new());
        let (variants, loaded) = (4, 2);
        Row { family, kernel, tier, dtype, variants, loaded, cases, error, tolerance, state, reason, perf }
    }

    #[test]
    fn machines_stand_side_by_side() {
        let report = |name: &str, rows| {
            let adapter = Adapter { name: name.into(), backend: "metal".into(), driver: String::new() };
            Report { adapter, rows }
        };
        let right = [row("base", "f32", State::Correct, 4), row("base", "f16", State::Correct, 3)];
        let wrong =
            [row("base", "f32", State::Correct, 4), row("base", "f16", State::Failed(Stage::Load), 0)];
        let none = row("subgroup", "f32", State::Unavailable, 0);
        let text =
            support_table(&[report("A", [right.to_vec(), vec![none]].concat()), report("B", wrong.to_vec())]);
        let line = |tier: &str| {
            let found = text.lines().find(|l| l.contains("rms_norm") && l.contains(tier)).unwrap_or_default();
            found.split('|').map(str::trim).map(String::from).collect::<Vec<_>>().join("|")
        };
        assert!(text.contains("A (metal)") && text.contains("B (metal)"), "{text}");
        assert_eq!(line(" base "), "|rms_norm|base|7/8|**fails: load** (f16)|");
        assert_eq!(line("subgroup"), "|rms_norm|subgroup|–|–|");
    }
}

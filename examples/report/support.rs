//! Kernel × tier × device, of several machines' audits.

use serde_json::Value;
use wgmarlin::CATALOGUE;
use wgmarlin::audit::{Cases, Row, State};

use super::{Failure, table, text};

const HEAD: &str = "# Support

What `audit --json` found on each device; made by `make audit-report`, never by hand. A cell sums up the rows of all dtypes and
formats; every case of a correct row was compared with the reference. `unavailable`: the device lacks what the tier needs.
";

pub fn render(audits: &[Value]) -> Result<String, Failure> {
    let machines = audits.iter().map(Machine::of).collect::<Result<Vec<_>, _>>()?;
    let lines: Vec<_> = machines.iter().zip(1..).map(|(machine, number)| machine.line(number)).collect();
    let header = [
        "",
        "device",
        "backend and driver",
        "capabilities",
        "audited",
        "version",
        "rows",
        "correct",
        "unavailable",
        "not reached",
        "cases right",
        "failed",
    ];
    let mut header_of_kernels = vec!["kernel".to_string(), "tier".to_string()];
    header_of_kernels.extend((1..=machines.len()).map(|number| number.to_string()));
    let header_of_kernels: Vec<&str> = header_of_kernels.iter().map(String::as_str).collect();
    let mut kernels = Vec::new();
    for spec in CATALOGUE {
        for tier in spec.tiers.iter().map(|t| t.tier.name()) {
            let cells = machines.iter().map(|machine| machine.cell(spec.name, tier));
            kernels.push([spec.name.to_string(), tier.to_string()].into_iter().chain(cells).collect());
        }
    }
    let (devices, kernels) = (table(&header, &lines), table(&header_of_kernels, &kernels));
    Ok(format!("{HEAD}\n{devices}\n{kernels}"))
}

struct Machine {
    about: Vec<String>,
    rows: Vec<Row>,
}

impl Machine {
    fn of(audit: &Value) -> Result<Machine, Failure> {
        let field = |path| text(audit, path).map(str::to_string);
        let adapter = &audit["adapter"];
        let mut capabilities: Vec<String> = adapter["capabilities"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| Some(c.as_str()?.into()))
            .collect();
        for capability in &mut capabilities {
            match (&**capability, adapter["subgroup_size"].as_u64(), adapter["coop_side"].as_u64()) {
                ("subgroup", Some(size), _) => *capability = format!("subgroups of {size}"),
                ("coop", _, Some(side)) => *capability = format!("coop side {side}"),
                _ => {}
            }
        }
        let driver = format!("{}, {}", field("/adapter/backend")?, field("/adapter/driver")?);
        let about = vec![
            field("/adapter/name")?,
            driver,
            capabilities.join(", "),
            field("/date")?,
            field("/version")?,
        ];
        Ok(Machine { about, rows: serde_json::from_value(audit["rows"].clone())? })
    }

    fn line(&self, number: usize) -> Vec<String> {
        let count = |wanted: &dyn Fn(State) -> bool| {
            self.rows.iter().filter(|row| wanted(row.state)).count().to_string()
        };
        let states = [
            self.rows.len().to_string(),
            count(&|s| s == State::Correct),
            count(&|s| s == State::Unavailable),
            count(&|s| s == State::Unreached),
            format!("{} of {}", self.cases(|c| c.correct), self.cases(|c| c.total)),
            count(&State::is_failure),
        ];
        [number.to_string()].into_iter().chain(self.about.clone()).chain(states).collect()
    }

    fn cases(&self, count: impl Fn(&Cases) -> usize) -> usize {
        self.rows.iter().map(|row| count(&row.cases)).sum()
    }

    /// `correct` where all rows are; else the dtypes of each state, the failures first.
    fn cell(&self, kernel: &str, tier: &str) -> String {
        let rows: Vec<&Row> =
            self.rows.iter().filter(|row| row.kernel == kernel && row.tier == tier).collect();
        let mut states: Vec<State> = Vec::new();
        for row in &rows {
            if !states.contains(&row.state) {
                states.push(row.state);
            }
        }
        states.sort_by_key(|state| (!state.is_failure(), state.to_string()));
        let dtypes = |state: State| {
            let of = rows.iter().filter(|row| row.state == state).map(|row| &*row.dtype);
            of.collect::<Vec<_>>().join(", ")
        };
        match &states[..] {
            [] => String::new(),
            [state] => state.to_string(),
            states => states.iter().map(|&s| format!("{s}: {}", dtypes(s))).collect::<Vec<_>>().join("; "),
        }
    }
}

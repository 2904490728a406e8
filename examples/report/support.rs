//! Kernel × tier × device, of several machines' audits.

use serde_json::Value;
use wgmarlin::audit::{Cases, Row, State};

use super::{Failure, table, text};

const HEAD: &str = "# Support

What `audit --json` found on each device; made by `make audit-report`, never by hand. A cell sums up the rows of all dtypes and
formats; every case that the device can run was compared with the reference. `unavailable`: it lacks what the tier needs.
Cases are the quick ones or, after a full audit, those of edge shapes too.
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
        "cases",
        "of them right",
        "failed",
    ];
    let mut header_of_kernels = vec!["kernel".to_string(), "tier".to_string()];
    header_of_kernels.extend((1..=machines.len()).map(|number| number.to_string()));
    let header_of_kernels: Vec<&str> = header_of_kernels.iter().map(String::as_str).collect();
    // The first machine's order is the catalogue's; what only others have comes behind.
    let mut units: Vec<(&str, &str)> = Vec::new();
    for row in machines.iter().flat_map(|machine| &machine.rows) {
        if !units.contains(&(&*row.kernel, &*row.tier)) {
            units.push((&row.kernel, &row.tier));
        }
    }
    let line = |&(kernel, tier): &(&str, &str)| {
        let cells = machines.iter().map(|machine| machine.cell(kernel, tier));
        [kernel.to_string(), tier.to_string()].into_iter().chain(cells).collect()
    };
    let kernels: Vec<Vec<String>> = units.iter().map(line).collect();
    let (devices, kernels) = (table(&header, &lines), table(&header_of_kernels, &kernels));
    Ok(format!("{HEAD}\n{devices}\n{kernels}"))
}

struct Machine {
    about: Vec<String>,
    /// Which cases were run: quick or full.
    level: String,
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
        Ok(Machine { about, level: field("/level")?, rows: serde_json::from_value(audit["rows"].clone())? })
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
            format!("{} ({})", self.cases(|c| c.total), self.level),
            self.cases(|c| c.correct).to_string(),
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

//! Turns the audit's JSON into the tables of the documentation; needs no GPU.
//!
//! `report performance docs/performance.json docs/performance.md` rewrites the tables between the marks of the second;
//! `report support docs/support.md a.json b.json …` writes kernel × tier × device of several machines' audits.

mod performance;
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

#[derive(Parser)]
#[command(name = "report")]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Write nothing; exit status 1 if the file would change.
    #[arg(long, global = true)]
    check: bool,
}

#[derive(Subcommand)]
enum What {
    /// The tables of timings.
    Performance {
        /// Written by `audit --perf --json`.
        audit: PathBuf,
        /// Markdown with `<!-- performance: kernel kernel -->` … `<!-- /performance -->`.
        document: PathBuf,
    },
    /// The table of what is correct where.
    Support {
        document: PathBuf,
        /// Written by `audit --json`, one for each machine.
        #[arg(required = true)]
        audits: Vec<PathBuf>,
    },
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool, Failure> {
    let (document, text) = match &cli.what {
        What::Performance { audit, document } => {
            (document, performance::rewrite(&json(audit)?, &read(document)?)?)
        }
        What::Support { document, audits } => {
            let audits = audits.iter().map(|path| json(path)).collect::<Result<Vec<_>, _>>()?;
            (document, support::render(&audits)?)
        }
    };
    if document.extension().is_some_and(|end| end == "json") {
        return Err(at(document, "a document is written here, not an audit"));
    }
    if !cli.check {
        std::fs::write(document, text).map_err(|e| at(document, e))?;
        return Ok(true);
    }
    let same = read(document)? == text;
    if !same {
        eprintln!("report: {} is not what the JSON says", document.display());
    }
    Ok(same)
}

fn at(path: &Path, error: impl std::fmt::Display) -> Failure {
    format!("{}: {error}", path.display()).into()
}

fn read(path: &Path) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(path).map_err(|e| at(path, e))?.replace("\r\n", "\n"))
}

fn json(path: &Path) -> Result<Value, Failure> {
    serde_json::from_str(&read(path)?).map_err(|e| at(path, e))
}

/// A field that must be there.
fn text<'a>(value: &'a Value, path: &str) -> Result<&'a str, Failure> {
    let found = value.pointer(path).and_then(Value::as_str);
    found.ok_or_else(|| format!("not an audit's JSON: no {path}").into())
}

/// A markdown table without the columns that are empty.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let used: Vec<usize> = (0..header.len())
        .filter(|&c| rows.iter().any(|r| r.get(c).is_some_and(|cell| !cell.is_empty())))
        .collect();
    let line = |cell: &dyn Fn(usize) -> String| {
        used.iter()
            .map(|&c| format!(" {} |", cell(c).replace('|', "\\|")))
            .fold("|".to_string(), |all, x| all + &x)
            + "\n"
    };
    let mut text = line(&|c| header[c].to_string());
    text += &format!("|{}\n", "---|".repeat(used.len()));
    for row in rows {
        text += &line(&|c| row.get(c).cloned().unwrap_or_default());
    }
    text
}

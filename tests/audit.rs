//! The audit program itself: it tells right from failed by its exit status, and it outlives crashes and hangs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// `cargo test` builds the examples beside the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let program = target.join("examples").join(format!("audit{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{} is missing: cargo build --example audit", program.display());
    program
}

fn audit(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().expect("starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Audits `rms_norm` and returns (succeeded, (tier, dtype, state) of each row).
fn rows(file: &str, more: &[&str]) -> (bool, Vec<(String, String, String)>) {
    let path = std::env::temp_dir().join(format!("wgmarlin-{}-{file}.json", std::process::id()));
    let json = path.to_string_lossy().into_owned();
    let output = audit(&[&["--quick", "--kernel", "rms_norm", "--json", &json], more].concat());
    let report = std::fs::read(&path).unwrap_or_else(|_| panic!("{}", text(&output)));
    std::fs::remove_file(&path).expect("it is ours");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_string();
    let rows = report["rows"].as_array().expect("rows").iter();
    let rows = rows.map(|row| (field(row, "tier"), field(row, "dtype"), field(row, "state"))).collect();
    (output.status.success(), rows)
}

#[test]
fn right_kernels_pass() {
    let (passed, rows) = rows("right", &[]);
    assert!(passed);
    assert_eq!(rows.len(), 4, "two tiers, two dtypes: {rows:?}");
    assert!(rows.iter().all(|(_, _, state)| state == "correct" || state == "unavailable"), "{rows:?}");
}

#[test]
fn missing_capabilities_are_named_and_no_failure() {
    let output = Command::new(program())
        .args(["--quick", "--kernel", "rms_norm", "--tier", "subgroup"])
        .env("WGMARLIN_DISABLE", "subgroup")
        .output()
        .expect("starts");
    let text = text(&output);
    assert!(output.status.success() && text.contains("needs subgroup: disabled"), "{text}");
}

#[test]
fn crashes_and_hangs_become_rows() {
    for (fault, state) in [("crash", "crashed"), ("hang", "hung")] {
        let (passed, rows) = rows(fault, &["--fault", fault, "--limit", "1"]);
        assert!(!passed);
        // Each tier is given up after two losses, and the audit goes on with the next one.
        let states: Vec<_> =
            rows.iter().map(|(tier, dtype, state)| (tier.as_str(), dtype.as_str(), state.as_str())).collect();
        let lost = |tier| [(tier, "f32", state), (tier, "f16", "unreached")];
        assert_eq!(states, [lost("base"), lost("subgroup")].concat());
    }
}

/// `argmax` timed at its best tier only, in JSON.
#[test]
fn timings_are_written() {
    let path = std::env::temp_dir().join(format!("wgmarlin-{}-timed.json", std::process::id()));
    let json = path.to_string_lossy().into_owned();
    let output = audit(&["--quick", "--kernel", "argmax", "--perf", "--best", "--json", &json]);
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("JSON");
    std::fs::remove_file(&path).expect("it is ours");
    let timed = report["performance"].as_array().expect("timings");
    let tiers: Vec<&str> = timed.iter().filter_map(|one| one["tier"].as_str()).collect();
    assert!(tiers.len() >= 2 && tiers.iter().all(|tier| *tier == tiers[0]), "{tiers:?}");
    assert!(timed.iter().all(|one| one["us"].as_f64() > Some(0.0) && one["gb_s"].as_f64() > Some(0.0)));
    let peer =
        timed.iter().find(|one| one["case"] == "1×128256 Normal" && one["dtype"] == "f32").expect("it");
    let (us, ratio) = (peer["us"].as_f64(), peer["peers"][0]["ratio"].as_f64());
    let product = us.zip(ratio).map_or(f64::NAN, |(us, ratio)| us * ratio);
    assert!((product - 30.9).abs() < 0.01, "burn took 30.9 µs: {peer}");
    assert!(report["date"].as_str().is_some_and(|date| date.len() == 10 && date > "2026-01-01"), "{report}");
    assert!(report["copy_gb_s"].as_f64() > Some(0.0) && report["adapter"]["driver"].is_string());
}

#[test]
fn what_the_budget_does_not_reach_is_counted() {
    let output = audit(&["--quick", "--kernel", "rms_norm", "--budget", "0"]);
    let text = text(&output);
    assert!(output.status.success() && text.contains("16 cases not reached; 4 rows without any"), "{text}");
}

#[test]
fn wrong_calls_are_explained() {
    for (arguments, want) in [
        (&["--kernel", "nonsense"][..], "no such kernel"),
        (&["--kernel", "rms_norm", "--kernel", "nonsense"], "no such kernel"),
        (&["--tier", "best"], "one of base, subgroup, coop, spirv, msl"),
        (&["--adapter", "nonsense adapter"], "no adapter's name contains"),
        (&["--inventory", "--kernel", "rms_norm"], "cannot be used with"),
        (&["--checks", "some"], "full"),
    ] {
        let output = audit(arguments);
        let text = text(&output);
        assert!(!output.status.success() && text.contains(want), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn the_list_needs_no_adapter() {
    let output = Command::new(program())
        .args(["--list", "--kernel", "rms_norm", "--kernel", "layer_norm"])
        .env("WGMARLIN_ADAPTER", "nonsense adapter")
        .output()
        .expect("starts");
    let text = text(&output);
    assert!(
        output.status.success() && text.contains("norm/rms_norm") && text.contains("tier base"),
        "{text}"
    );
    assert!(
        text.contains("norm/layer_norm") && !text.contains("embed/embed"),
        "only what was asked for: {text}"
    );
}

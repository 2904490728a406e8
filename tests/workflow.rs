//! What `.github/workflows/ci.yml` must do on machines that are not at hand. `make lint-workflow` compares it with GitHub's schema.

use serde_json::Value;

const TEXT: &str = include_str!("../.github/workflows/ci.yml");

fn jobs(text: &str) -> Value {
    let workflow: Value = serde_yaml_ng::from_str(text).expect("YAML");
    workflow["jobs"].clone()
}

fn steps<'a>(jobs: &'a Value, job: &str) -> &'a [Value] {
    jobs[job]["steps"].as_array().unwrap_or_else(|| panic!("{job} has no steps"))
}

/// The commands of a job's steps, empty for those that use an action.
fn commands<'a>(jobs: &'a Value, job: &str) -> Vec<&'a str> {
    steps(jobs, job).iter().map(|step| step["run"].as_str().unwrap_or_default()).collect()
}

#[test]
fn every_step_runs_or_uses_something() {
    let jobs = jobs(TEXT);
    for (job, what) in jobs.as_object().expect("jobs") {
        assert!(what["runs-on"].is_string(), "{job} runs nowhere");
        assert!(what["timeout-minutes"].is_u64(), "{job} may run for six hours");
        for step in steps(&jobs, job) {
            assert!(step["run"].is_string() != step["uses"].is_string(), "{job}: {step}");
        }
    }
}

#[test]
fn linux_runs_what_a_machine_of_ours_runs_and_skips_nothing() {
    let jobs = jobs(TEXT);
    let ci =
        commands(&jobs, "linux").into_iter().find(|run| run.contains(".ci/run")).expect("it calls .ci/run");
    assert!(ci.contains("CI_REQUIRE_COOP=1") && ci.contains("CI_REQUIRE_MSL=1"));
    assert!(commands(&jobs, "msl").iter().any(|run| run.contains("CI_REQUIRE_MSL=1 make test-msl")));
    assert!(commands(&jobs, "msl").iter().any(|run| run.contains("make test-wgsl")));
}

#[test]
fn real_metal_is_tested_audited_and_reported() {
    let jobs = jobs(TEXT);
    let job = &jobs["macos"];
    let systems: Vec<&str> = job["strategy"]["matrix"]["os"]
        .as_array()
        .expect("systems")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(systems.starts_with(&["macos-14", "macos-15"]) && job["runs-on"] == "${{ matrix.os }}");
    assert_eq!(job["strategy"]["fail-fast"], false, "one system's failure must not hide another's");
    let (steps, commands) = (steps(&jobs, "macos"), commands(&jobs, "macos"));
    let test = commands.iter().position(|run| *run == "make test").expect("it tests");
    let audit = commands.iter().position(|run| run.starts_with("make audit ")).expect("it audits");
    let summary = commands.iter().position(|run| run.contains("GITHUB_STEP_SUMMARY")).expect("a summary");
    assert!(test < audit && audit < summary);
    // An incorrect row ends the audit with an error, which a pipe hides unless bash is named: GitHub then sets pipefail.
    assert!(!commands[audit].contains('|') || steps[audit]["shell"] == "bash");
    assert!(
        commands[audit].contains("--json $REPORT.json") && commands[audit].contains("tee \"$REPORT.md\"")
    );
    for after in [audit, summary] {
        assert_eq!(steps[after]["if"], "always()", "reported even where a test has failed");
    }
    let upload = steps
        .iter()
        .find(|step| step["uses"].as_str().is_some_and(|u| u.starts_with("actions/upload-artifact")));
    let path = upload.expect("an artefact")["with"]["path"].as_str().expect("paths").to_string();
    assert!(path.contains("audit-${{ matrix.os }}.json") && path.contains("audit-${{ matrix.os }}.md"));
    assert_eq!(job["env"]["REPORT"], "audit-${{ matrix.os }}");
}

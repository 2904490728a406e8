//! Peers, targets and the tables made of the audit's JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use wgmarlin::CATALOGUE;
use wgmarlin::kernel::Level;

/// `cargo test` builds the examples beside the tests.
fn run(example: &str, arguments: &[&str]) -> Output {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let program = target.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    Command::new(program).args(arguments).output().expect("the example is built and starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn docs(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name).to_string_lossy().into_owned()
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("wgmarlin-{}-{name}", std::process::id()))
}

fn read(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("JSON")
}

fn write(name: &str, content: &str) -> String {
    let path = temporary(name);
    std::fs::write(&path, content).expect("a writable folder");
    path.to_string_lossy().into_owned()
}

/// Targets and peers are of cases that are timed, and so are the cases that others are measured by.
#[test]
fn peers_name_real_cases() {
    let mut timed: Vec<String> = Vec::new();
    for spec in CATALOGUE {
        let cases = (spec.cases)().into_iter().filter(|case| case.level == Level::Perf);
        timed.extend(cases.map(|case| format!("{} {} {}", spec.name, case.dtype, case.label)));
    }
    let peers = read(&docs("peers.json"));
    let (mut seen, mut wrong) = (Vec::new(), Vec::new());
    for case in peers["cases"].as_array().expect("cases") {
        let field = |name: &str| case[name].as_str().expect("text");
        let name = format!("{} {} {}", field("kernel"), field("dtype"), field("case"));
        if field("kernel") != "stack" && !timed.contains(&name) {
            wrong.push(name.clone());
        }
        for figure in [&case["must"], &case["goal"]] {
            let other = ["times", "bytes"].iter().find_map(|kind| figure[kind]["of"].as_str());
            wrong.extend(other.filter(|of| !timed.iter().any(|name| name == of)).map(str::to_string));
        }
        let sources = peers["sources"].as_object().expect("sources");
        let unknown =
            case["peers"].as_object().into_iter().flatten().filter(|(peer, _)| !sources.contains_key(*peer));
        wrong.extend(unknown.map(|(peer, _)| peer.clone()));
        assert!(!seen.contains(&name), "{name} stands twice");
        seen.push(name);
    }
    assert!(wrong.is_empty(), "not among the timed cases or the sources:\n{}", wrong.join("\n"));
}

/// The tables of the documentation are made, never typed.
#[test]
fn the_documents_are_what_the_json_says() {
    let output =
        run("report", &["performance", &docs("performance.json"), &docs("performance.md"), "--check"]);
    assert!(output.status.success(), "{}: make performance-tables", text(&output));
    let audits = std::fs::read_dir(docs("audits")).expect("docs/audits");
    let mut audits: Vec<String> =
        audits.map(|entry| entry.expect("a file").path().to_string_lossy().into_owned()).collect();
    audits.sort();
    let support = docs("support.md");
    let arguments: Vec<&str> =
        ["support", "--check", &support].into_iter().chain(audits.iter().map(String::as_str)).collect();
    let output = run("report", &arguments);
    assert!(output.status.success(), "{}: make audit-report", text(&output));
}

fn audit(device: &str, states: [Value; 2]) -> Value {
    let row = |dtype: &str, state: &Value| {
        json!({
            "family": "norm", "kernel": "rms_norm", "tier": "base", "dtype": dtype, "variants": 4, "loaded": 1,
            "cases": { "total": 7, "correct": 5, "skipped": 0, "failed": 0, "unreached": 2 },
            "error": null, "tolerance": null, "state": state, "reason": null, "perf": [],
        })
    };
    let timed = |case: &str, tier: &str, us: f64, met: bool| {
        json!({
            "kernel": "rms_norm", "tier": tier, "dtype": "f16", "case": case, "shape": case, "format": "f16",
            "us": us, "gb_s": 1000.0, "tflop_s": 1.5, "copy_percent": 31.4, "clock": "timestamps",
            "must": { "us": 20.0, "met": met }, "goal": null,
            "peers": [{ "name": "pytorch", "us": 24.0, "ratio": 24.0 / us }],
        })
    };
    json!({
        "version": "1.2.3", "level": "full", "date": "2026-01-02", "copy_gb_s": 4000.0, "checks": null, "inventory": [],
        "adapter": {
            "name": device, "backend": "vulkan", "driver": "7.8", "type": "DiscreteGpu",
            "capabilities": ["f16", "subgroup"], "subgroup_size": 32, "coop_side": null,
        },
        "rows": [row("f32", &states[0]), row("f16", &states[1])],
        "performance": [
            timed("slow", "base", 40.0, false), timed("quick", "base", 30.0, false), timed("quick", "subgroup", 16.0, true),
        ],
        "peers": { "device": "D", "date": "2025-12-31", "sources": { "pytorch": "PyTorch 9" }, "method": "m" },
    })
}

#[test]
fn audits_of_several_machines_merge() {
    let good = write("good.json", &audit("Good GPU", [json!("correct"), json!("correct")]).to_string());
    let bad =
        write("bad.json", &audit("Bad GPU", [json!("correct"), json!({ "failed": "load" })]).to_string());
    let out = temporary("support.md").to_string_lossy().into_owned();
    let output = run("report", &["support", &out, &good, &bad]);
    assert!(output.status.success(), "{}", text(&output));
    let made = std::fs::read_to_string(&out).expect("written");
    let line = |start: &str| {
        made.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start}: {made}"))
    };
    assert!(line("| rms_norm | base |").ends_with("| correct | fails: load: f16; correct: f32 |"), "{made}");
    assert!(
        line("| 1 | Good GPU | vulkan, 7.8 | f16, subgroups of 32 | 2026-01-02 | 1.2.3 | 2 | 2 |")
            .ends_with('|')
    );
    assert!(line("| 2 | Bad GPU").ends_with("| 14 (full) | 10 | 1 |"), "{made}");
    let output = run("report", &["support", "--check", &out, &good]);
    assert!(
        !output.status.success() && text(&output).contains("is not what the JSON says"),
        "{}",
        text(&output)
    );
    let broken = write("broken.json", "{}");
    let output = run("report", &["support", &out, &broken]);
    assert!(!output.status.success() && text(&output).contains("no /adapter/backend"), "{}", text(&output));
    [good, bad, out, broken].iter().for_each(|path| std::fs::remove_file(path).expect("ours"));
}

#[test]
fn timings_become_tables() {
    let from = write("timed.json", &audit("GPU", [json!("correct"), json!("correct")]).to_string());
    let document = "before\n<!-- performance: device -->\nold\n<!-- /performance -->\nbetween\n\
                    <!-- performance: rms_norm -->\n<!-- /performance -->\n<!-- performance: gemm -->\n\
                    <!-- /performance -->\nafter\n";
    let out = write("timed.md", document);
    let output = run("report", &["performance", &from, &out]);
    assert!(output.status.success(), "{}", text(&output));
    let made = std::fs::read_to_string(&out).expect("written");
    for want in [
        "before\n<!-- performance: device -->\nDevice: GPU (7.8), vulkan; 2026-01-02, version 1.2.3. Copy: 4000 GB/s.\n",
        "| case | tier | µs | GB/s | TFLOP/s | of copy | must, µs | pytorch |\n",
        "| slow | base | 40.0 | 1000 | 1.50 | 31 % | 20.0 (missed) | 24.0 (0.60×) |\n",
        "| quick | subgroup | 16.0 | 1000 | 1.50 | 31 % | 20.0 | 24.0 (1.50×) |\n<!-- /performance -->\n",
        "<!-- performance: gemm -->\nNot measured yet.\n<!-- /performance -->\nafter\n",
    ] {
        assert!(made.contains(want), "no {want} in\n{made}");
    }
    assert!(!made.contains("old") && !made.contains("| quick | base"), "{made}");
    assert!(run("report", &["performance", &from, &out, "--check"]).status.success());
    let open = write("open.md", "<!-- performance: gemm -->\nno end\n");
    let output = run("report", &["performance", &from, &open]);
    assert!(
        !output.status.success() && text(&output).contains("without <!-- /performance -->"),
        "{}",
        text(&output)
    );
    [from, out, open].iter().for_each(|path| std::fs::remove_file(path).expect("ours"));
}

#[test]
fn a_small_stack_is_timed() {
    let json = write("stack.json", &audit("GPU", [json!("correct"), json!("correct")]).to_string());
    let small =
        ["--layers", "2", "--hidden", "64", "--ffn", "96", "--kv", "32", "--vocab", "128", "--json", &json];
    for _ in 0..2 {
        let output = run("stack", &small);
        assert!(output.status.success() && text(&output).contains("µs a token"), "{}", text(&output));
    }
    let performance = read(&json)["performance"].clone();
    let is = |one: &&Value| one["kernel"] == "stack";
    let stacks: Vec<&Value> = performance.as_array().expect("timings").iter().filter(is).collect();
    let [one] = stacks[..] else { panic!("once, though it ran twice: {stacks:?}") };
    assert_eq!(one["case"], "2 layers of 64, 96, 32 and 128 rows of fp4 g32");
    assert!(one["us"].as_f64().is_some_and(|us| us > 0.0), "{one}");
    std::fs::remove_file(json).expect("ours");
    let output = run("stack", &["--layers", "1", "--hidden", "60", "--ffn", "96"]);
    assert!(!output.status.success() && !text(&output).contains("panicked"), "{}", text(&output));
    let output = run("stack", &["--format", "nf4"]);
    assert!(!output.status.success() && text(&output).contains("one of fp4"), "{}", text(&output));
}

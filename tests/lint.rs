//! Rules that the compilers do not know: traps that naga translates silently wrong, and the shape of the tree.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use wgmarlin::CATALOGUE;
use wgmarlin::device::{MSL_CANARY, SPIRV_CANARY};
use wgmarlin::kernel::Level;

const MOST_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir` with this extension: path from the root, and text.
fn files(dir: &str, extension: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() { walk(&path, found)? } else { found.push(path) }
        }
        Ok(())
    }
    let mut found = Vec::new();
    if root().join(dir).exists() {
        walk(&root().join(dir), &mut found).expect("the tree is readable");
    }
    found.sort();
    found.retain(|path| path.extension().is_some_and(|e| e == extension));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("sources are UTF-8");
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
        (name, text)
    };
    found.into_iter().map(read).collect()
}

/// WGSL and MSL.
fn shaders() -> Vec<(String, String)> {
    [files("wgsl", "wgsl"), files("msl", "metal")].concat()
}

/// Lines without comments, numbered from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines().map(|line| line.split("//").next().unwrap_or_default()))
}

/// Fails with every complaint at once.
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// `bitcast` between u32 and f16 vectors swaps nothing on one backend and everything on another.
fn has_f16_bitcast(line: &str) -> bool {
    line.match_indices("bitcast").any(|(at, _)| {
        let rest = line[at + 7..].trim_start();
        let target = rest.strip_prefix('<').unwrap_or_default();
        // To a half vector, to an alias that may be one, or of something that is one.
        target.starts_with("vec2<f16>")
            || target.starts_with("vec4<f16>")
            || target.starts_with("vec2h")
            || target.starts_with("vec4h")
            || target.starts_with("f16")
            || rest.contains("f16")
    })
}

/// The index of a `coopStore` must be a literal, a parameter or a plain `let`: naga drops expressions.
fn bad_coop_store(line: &str) -> bool {
    line.match_indices("coopStore").any(|(at, _)| {
        let arguments = &line[at..];
        let Some(open) = arguments.find("&") else { return !arguments.contains("fn ") };
        let pointer = &arguments[open..];
        let Some(start) = pointer.find('[') else { return false };
        let index = pointer[start + 1..].split(']').next().unwrap_or_default().trim();
        !index.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[test]
fn the_trap_detectors_detect() {
    assert!(has_f16_bitcast("let h = bitcast<vec2<f16>>(word);"));
    assert!(has_f16_bitcast("let w = bitcast<u32>(vec2<f16>(a, b));"));
    assert!(!has_f16_bitcast("let x = bitcast<f32>(word << 16u);"));
    assert!(bad_coop_store("coopStoreT(c, &out[row * n + col], n);"));
    assert!(bad_coop_store("coopStore(c, &out[at[0]], n);"));
    assert!(!bad_coop_store("coopStoreT(c, &out[at], n);"));
    assert!(!bad_coop_store("coopStoreT(acc[i][j], &tile[0], 8u);"));
}

#[test]
fn shaders_avoid_the_traps() {
    let mut found = Vec::new();
    for (name, text) in files("wgsl", "wgsl") {
        for (number, line) in code(&text) {
            let mut complain = |why: &str| found.push(format!("{name}:{number}: {why}: {}", line.trim()));
            if has_f16_bitcast(line) {
                complain("bitcast of f16 vectors");
            }
            if bad_coop_store(line) {
                complain("coopStore with an index expression");
            }
            if line.contains("enable subgroups") {
                complain("naga does not know `enable subgroups`");
            }
        }
    }
    none("traps", found);
}

#[test]
fn shaders_say_what_they_compute() {
    let mut found = Vec::new();
    for (name, text) in shaders() {
        match text.lines().take_while(|line| line.starts_with("//") && !line.starts_with("//!")).count() {
            0 => found.push(format!("{name}: no header comment")),
            1..=12 => {}
            lines => found.push(format!("{name}: a header of {lines} lines, at most 12")),
        }
    }
    none("headers", found);
}

#[test]
fn files_are_short() {
    let all = ["src", "wgsl", "msl", "tests", "examples", "benches"]
        .into_iter()
        .flat_map(|dir| ["rs", "wgsl", "metal"].into_iter().flat_map(move |e| files(dir, e)));
    let long = |(name, text): (String, String)| {
        let lines = text.lines().count();
        (lines > MOST_LINES).then(|| format!("{name}: {lines} lines"))
    };
    none("longer than 500 lines", all.filter_map(long).collect());
}

#[test]
fn every_shader_is_used() {
    let language = |path: &str| if path.ends_with(".metal") { "msl" } else { "wgsl" };
    let specs = CATALOGUE.iter().copied().chain([&MSL_CANARY, &SPIRV_CANARY]);
    let mut used: HashSet<String> = specs
        .flat_map(|spec| spec.tiers)
        .map(|tier| format!("{}/{}", language(tier.path), tier.path))
        .collect();
    for (name, text) in &shaders() {
        for line in text.lines().filter_map(|l| l.trim().strip_prefix("//!include ")) {
            used.insert(format!("{}/{}", language(name), line.trim().trim_matches('"')));
        }
    }
    none("unused", shaders().into_iter().map(|s| s.0).filter(|name| !used.contains(name)).collect());
}

#[test]
fn trees_agree() {
    let mut found = Vec::new();
    for spec in CATALOGUE {
        for file in ["mod.rs", "spec.rs", "cpu.rs"] {
            let path = format!("src/{}/{file}", spec.family);
            if !root().join(&path).exists() {
                found.push(format!("{}: no {path}", spec.name));
            }
        }
        for tier in spec.tiers {
            if tier.path.split('/').next() != Some(spec.family) {
                found.push(format!("{}: {} is not in the family's folder", spec.name, tier.path));
            }
        }
    }
    none("misplaced", found);
}

#[test]
fn kernels_are_declared_whole() {
    let mut names = HashSet::new();
    let mut found = Vec::new();
    for spec in CATALOGUE {
        let mut complain = |why: String| found.push(format!("{}: {why}", spec.name));
        if !names.insert(spec.name) {
            complain("declared twice".into());
        }
        let tiers: Vec<_> = spec.tiers.iter().map(|t| t.tier).collect();
        if tiers.is_empty() || !tiers.is_sorted_by(|a, b| a < b) {
            complain(format!("tiers must go from the worst to the best, each once: {tiers:?}"));
        }
        let cases = (spec.cases)();
        for level in [Level::Quick, Level::Full, Level::Perf] {
            if !cases.iter().any(|case| case.level == level) {
                complain(format!("no {level:?} case"));
            }
        }
        let mut labels: HashMap<(&str, &str), usize> = HashMap::new();
        for case in &cases {
            *labels.entry((case.dtype, &case.label)).or_default() += 1;
        }
        for (label, _) in labels.into_iter().filter(|(_, count)| *count > 1) {
            complain(format!("several cases are called {label:?}"));
        }
    }
    none("incomplete", found);
}

/// A library does not take its caller down.
#[test]
fn nothing_panics_in_src() {
    const WORDS: [&str; 7] =
        [".unwrap()", ".expect(\"", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "process::exit"];
    let mut found = Vec::new();
    for (name, text) in files("src", "rs") {
        if name.ends_with("tests.rs") {
            continue;
        }
        // Unit tests stand at the end of a file.
        let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let body = body.split("#[cfg(all(test").next().unwrap_or_default();
        for (number, line) in code(body) {
            if WORDS.iter().any(|word| line.contains(word)) {
                found.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    none("may panic", found);
}

/// The example that the README shows is the one that CI compiles.
#[test]
fn the_readme_quotes_the_example() {
    let read =
        |name: &str| fs::read_to_string(root().join(name)).expect("part of the crate").replace("\r\n", "\n");
    let readme = read("README.md");
    let blocks: Vec<&str> =
        readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks, [read("examples/matmul.rs")], "README.md's Rust code is not examples/matmul.rs");
}

/// The README's table of kernels says what the catalogue says: rows `| kernel | module | tiers | ...`.
#[test]
fn the_readme_lists_the_kernels() {
    let readme = fs::read_to_string(root().join("README.md")).expect("part of the crate");
    let listed: Vec<String> = readme
        .lines()
        .skip_while(|line| !line.starts_with("| kernel | module "))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').skip(1).take(3).map(str::trim).collect::<Vec<_>>().join(" | "))
        .collect();
    let row = |spec: &&wgmarlin::KernelSpec| {
        let tiers: Vec<_> = spec.tiers.iter().map(|t| t.tier.name()).collect();
        format!("`{}` | `{}` | {}", spec.name, spec.family, tiers.join(", "))
    };
    let want: Vec<String> = CATALOGUE.iter().map(row).collect();
    assert_eq!(listed, want, "the table must be:\n{}", want.join("\n"));
}

//! The `generate` example on the checkpoint in `tests/fixtures/llama`: it agrees with transformers, quantisation costs
//! what it should, and no file, however broken, makes it panic.
//!
//! The example runs as a child process; its reader of checkpoints is included here and tested directly.

#[path = "../examples/generate/checkpoint.rs"]
#[allow(dead_code)]
mod checkpoint;
#[path = "../examples/generate/error.rs"]
#[allow(dead_code)]
mod error;
#[path = "support/generate.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use wgmarlin::format::Format;

use support::{CONFIG, Copy, MODEL, Outcome, REFERENCE, TOKENIZER, fails, generate, join, split};

fn fixture() -> PathBuf {
    support::fixture("llama")
}

impl Copy {
    fn new(name: &str) -> Copy {
        Copy::of("llama", name)
    }
}

/// Standard output of a run that must succeed.
fn succeeds(args: &[&str]) -> String {
    let Outcome { code, stdout, stderr } = generate(&fixture(), args);
    assert_eq!(code, Some(0), "{args:?}\n{stdout}\n{stderr}");
    stdout
}

// ---- the model against transformers ----

#[test]
fn f32_agrees_with_transformers() {
    let out = succeeds(&["--weights", "f32", "--check"]);
    assert!(out.contains("argmax    160 of 160") && out.contains("first 96 of 96"), "{out}");
    assert!(out.contains("passed (error < 1e-4, argmax ≥ 100 %, all greedy tokens)"), "{out}");
}

#[test]
fn f16_agrees_with_transformers() {
    let out = succeeds(&["--weights", "f16", "--check"]);
    assert!(out.contains("passed (error < 2e-2, argmax ≥ 98 %)"), "{out}");
}

#[test]
fn a_cache_in_blocks_agrees_with_transformers() {
    for more in [&["--kv", "f32", "--paged", "16"][..], &["--paged", "256"]] {
        let out = succeeds(&[&["--weights", "f32", "--check"], more].concat());
        assert!(out.contains("passed (error < 1e-4, argmax ≥ 100 %, all greedy tokens)"), "{out}");
    }
}

/// The check can fail: one row of one weight matrix negated is enough.
#[test]
fn a_changed_weight_fails_the_check() {
    let copy = Copy::new("changed").edit(MODEL, |bytes| {
        let (header, _) = split(&bytes);
        let start =
            bytes.len() - header["model.norm.weight"]["data_offsets"][1].as_u64().expect("end") as usize;
        let from = header["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0].as_u64().expect("start");
        let mut bytes = bytes;
        for element in 0..256 {
            bytes[start + from as usize + 2 * element + 1] ^= 0x80;
        }
        bytes
    });
    let Outcome { code, stdout, stderr } = generate(&copy.0, &["--weights", "f32", "--check"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.contains("FAILED"), "{stdout}");
    assert!(!stdout.contains("argmax    0 of"), "more than one row is wrong: {stdout}");
}

/// Over one window of 512 tokens, on which the formats are far enough apart.
fn perplexity(weights: &str, scale: &str) -> f64 {
    perplexity_of(&["--weights", weights, "--scale", scale])
}

fn perplexity_of(args: &[&str]) -> f64 {
    let out = succeeds(&[args, &["--perplexity", "--windows", "1"]].concat());
    let value = out.split_whitespace().nth(1).and_then(|v| v.parse().ok());
    value.unwrap_or_else(|| panic!("no perplexity in {out}"))
}

/// That of the weights as they are, which several tests compare with.
fn exact_perplexity() -> f64 {
    static EXACT: OnceLock<f64> = OnceLock::new();
    *EXACT.get_or_init(|| perplexity("f32", "mse"))
}

#[test]
fn quantisation_costs_little_and_the_searched_scale_less() {
    let exact = exact_perplexity();
    let cost = |weights, scale| perplexity(weights, scale) / exact - 1.0;
    let (int8, fp4, rounded) = (cost("int8", "mse"), cost("fp4", "mse"), cost("fp4", "absmax"));
    assert!(int8.abs() < 3e-3, "int8 changes the perplexity by {int8}");
    assert!(fp4 > 0.0 && fp4 < 0.05, "fp4 with searched scales costs {fp4}");
    assert!(rounded > 1.5 * fp4 && rounded < 0.12, "fp4 with absmax scales costs {rounded}, searched {fp4}");
}

/// Limits about a hundredth above what was measured. Two bits ruin a model this small.
#[test]
fn other_formats_cost_what_they_should() {
    let exact = exact_perplexity();
    for (weights, most) in [
        ("bf16", 0.01),
        ("int8z", 0.013),
        ("e4m3", 0.014),
        ("e5m2", 0.035),
        ("int4z", 0.042),
        ("int4", 0.065),
        ("nf4", 0.005),
        ("nvfp4", 0.045),
        ("mxfp4", 0.116),
        ("nf3", 0.133),
        ("int3", 0.199),
        ("int2", 1.83),
    ] {
        let cost = perplexity(weights, "mse") / exact - 1.0;
        assert!(cost > -0.016 && cost < most, "{weights} costs {cost}");
    }
}

#[test]
fn every_format_generates() {
    let help = succeeds(&["--help"]);
    for format in Format::ALL {
        assert!(
            help.contains(&format!("{}, ", format.name())) || help.contains(&format!("{}]", format.name()))
        );
    }
    // Every format is loaded by some other test too, so here one of each kind.
    for format in ["f16", "e5m2", "mxfp4", "nf3", "int2"] {
        let text = succeeds(&["--prompt", "The type of a", "--weights", format, "--max-new", "4"]);
        assert!(text.starts_with("The type of a"), "{text}");
        assert!(text.trim().len() > "The type of a".len(), "{text}");
    }
}

#[test]
fn narrow_caches_cost_little() {
    let of = |kv| perplexity_of(&["--weights", "f32", "--kv", kv, "--paged", "32"]);
    let exact = of("f32");
    for (kv, most) in [("fp8", 1e-2), ("int8", 3e-3), ("int4", 0.1), ("fp4", 0.1)] {
        let cost = of(kv) / exact - 1.0;
        assert!(cost != 0.0 && cost.abs() < most, "{kv} changes the perplexity by {cost}");
    }
}

#[test]
fn sampling_repeats_with_its_seed() {
    let text = |more: &[&str]| {
        succeeds(&[&["--prompt", "The type of a", "--weights", "fp4", "--max-new", "12"], more].concat())
    };
    let greedy = text(&[]);
    assert!(greedy.starts_with("The type of a"), "{greedy}");
    assert_eq!(greedy, text(&["--temperature", "0.8", "--top-k", "1"]));
    let seeded = |seed| text(&["--temperature", "1.5", "--top-p", "0.95", "--seed", seed]);
    let one = seeded("1");
    assert_eq!(one, seeded("1"));
    assert!(one != seeded("2") || one != seeded("3"), "the seed has no effect: {one}");
}

#[test]
fn generation_stops_at_the_end_of_the_context_and_reports() {
    let args = ["--prompt", "The type of a", "--weights", "int4", "--context", "8", "--max-new", "50"];
    let Outcome { code, stdout, stderr } = generate(&fixture(), &args);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("The type of a") && stdout.ends_with('\n'), "{stdout}");
    for line in ["prompt    4 tokens, ", "decode    4 tokens, ", "for 8 positions", "qgemv", "argmax"] {
        assert!(stderr.contains(line), "no {line:?} in\n{stderr}");
    }
}

// ---- error paths, one per way to go wrong ----

#[test]
fn missing_files() {
    fails(Path::new("/no/such/model"), &["--prompt", "x"], &["config.json"]);
    for file in [CONFIG, MODEL, TOKENIZER, REFERENCE] {
        let copy = Copy::new(&format!("without-{file}"));
        fs::remove_file(copy.0.join(file)).expect("remove");
        fails(&copy.0, &["--prompt", "x", "--check"], &[file]);
    }
}

#[test]
fn broken_checkpoints() {
    let prompt = &["--prompt", "x", "--max-new", "1"];
    let case = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, words: &[&str]| {
        fails(&Copy::new(name).edit(MODEL, change).0, prompt, &[&[MODEL], words].concat());
    };
    case("empty", &|_| Vec::new(), &["truncated"]);
    case("short", &|bytes| bytes[..7].to_vec(), &["truncated"]);
    case("half-a-header", &|bytes| bytes[..100].to_vec(), &["truncated: header"]);
    case("half-the-data", &|bytes| bytes[..bytes.len() / 2].to_vec(), &["truncated"]);
    let announce = |length: u64| move |bytes: Vec<u8>| [&length.to_le_bytes(), &bytes[8..]].concat();
    case("long-header", &announce(1 << 60), &["header of 1152921504606846976 bytes"]);
    case("endless-header", &announce(u64::MAX), &["header of 18446744073709551615 bytes"]);
    case("no-json", &|bytes| [&bytes[..8], &[b'{'; 64], &bytes[72..]].concat(), &["invalid header"]);

    let case = |name: &str, tensor: &str, field: &str, value: Value, words: &[&str]| {
        let copy = Copy::new(name).edit_header(MODEL, |header| header[tensor][field] = value);
        fails(&copy.0, prompt, &[&[MODEL], words].concat());
    };
    let norm = "model.norm.weight";
    case("dtype", norm, "dtype", json!("I16"), &[norm, "dtype I16", "F32, F16 or BF16"]);
    case("shape", norm, "shape", json!([2, 128]), &[norm, "[2, 128]", "[256]"]);
    let up = "model.layers.2.mlp.up_proj.weight";
    case("transposed", up, "shape", json!([256, 704]), &[up, "[256, 704]", "[704, 256]"]);
    case("offsets", norm, "data_offsets", json!([7_999_488, 1u64 << 62]), &["invalid header"]);
    case("backwards", norm, "data_offsets", json!([8_000_000, 7_999_488]), &["invalid header"]);
    case("overflow", norm, "shape", json!([1u64 << 40, 1u64 << 40]), &["invalid header"]);
    let copy = Copy::new("missing-tensor").edit_header(MODEL, |header| {
        header["model.final.weight"] = header[norm].take();
        header.as_object_mut().expect("object").remove(norm);
    });
    fails(&copy.0, prompt, &[MODEL, norm, "missing"]);
}

#[test]
fn broken_shard_indices() {
    let case = |name: &str, index: Value, words: &[&str]| {
        let copy = Copy::new(name);
        fs::write(copy.0.join("model.safetensors.index.json"), index.to_string()).expect("write");
        fails(&copy.0, &["--prompt", "x"], words);
    };
    let norm = "model.norm.weight";
    case("index-empty", json!({}), &["index.json", "weight_map"]);
    case("index-outside", json!({"weight_map": {norm: "../x.safetensors"}}), &["not the name of a file"]);
    case("index-missing", json!({"weight_map": {norm: "x.safetensors"}}), &["x.safetensors"]);
    case("index-partial", json!({"weight_map": {norm: MODEL}}), &["embed_tokens", "missing"]);
}

#[test]
fn configurations_that_do_not_fit() {
    let case = |name: &str, field: &str, value: Value, words: &[&str]| {
        let copy = Copy::new(name).edit_json(CONFIG, |config| config[field] = value);
        fails(&copy.0, &["--prompt", "x"], &[&[CONFIG], words].concat());
    };
    case("architecture", "architectures", json!(["MambaForCausalLM"]), &["unknown architecture", "Mamba"]);
    case("no-architecture", "architectures", json!(null), &["unknown architecture"]);
    case("no-layers", "num_hidden_layers", json!(0), &["num_hidden_layers"]);
    // Well-formed, but not what the checkpoint holds.
    let copy = Copy::new("layers").edit_json(CONFIG, |config| config["num_hidden_layers"] = json!(5));
    fails(&copy.0, &["--prompt", "x"], &["model.layers.4.", "missing"]);
    let copy = Copy::new("vocab").edit_json(CONFIG, |config| config["vocab_size"] = json!(8192));
    fails(&copy.0, &["--prompt", "x"], &["embed_tokens", "[4096, 256]", "[8192, 256]"]);
    fails(&Copy::new("config-json").edit(CONFIG, |_| b"{".to_vec()).0, &["--prompt", "x"], &["JSON"]);
    fails(
        &Copy::new("tokenizer-json").edit(TOKENIZER, |_| b"{}".to_vec()).0,
        &["--prompt", "x"],
        &[TOKENIZER],
    );
}

#[test]
fn tokens_out_of_range_and_prompts_too_long() {
    let copy = Copy::new("tokenizer").edit_json(TOKENIZER, |tokenizer| {
        let mut token = tokenizer["added_tokens"][0].clone();
        token["id"] = json!(4096);
        token["content"] = json!("<|beyond|>");
        tokenizer["added_tokens"].as_array_mut().expect("array").push(token);
    });
    fails(&copy.0, &["--prompt", "a <|beyond|>"], &["token id 4096 is out of range", "4096 tokens"]);

    for (value, name) in [(4096i32, "large"), (-1, "negative")] {
        let copy = Copy::new(&format!("reference-{name}")).edit(REFERENCE, |bytes| {
            let (header, data) = split(&bytes);
            let mut data = data.to_vec();
            let at = header["eval_ids"]["data_offsets"][0].as_u64().expect("offset") as usize;
            data[at + 4..at + 8].copy_from_slice(&value.to_le_bytes());
            join(&header, &data)
        });
        fails(&copy.0, &["--perplexity"], &["eval_ids", &format!("token id {value} is out of range")]);
    }
    let fixture = fixture();
    let long = "the quick brown fox ".repeat(20);
    fails(&fixture, &["--prompt", &long, "--context", "16"], &["prompt", "longer than the context of 16"]);
    fails(&fixture, &["--prompt", &long.repeat(60)], &["longer than the context of 2048"]);
    fails(&fixture, &["--check", "--context", "100"], &["--context", "160 positions"]);
    fails(&fixture, &["--prompt", ""], &["no tokens"]);
}

#[test]
fn arguments_out_of_range() {
    let fixture = fixture();
    for (name, values) in [
        ("--group", &["0", "7", "256", "-1", "x"][..]),
        ("--max-new", &["0", "-1", "1e9", "99999999999"]),
        ("--temperature", &["-1", "NaN", "inf", "1e-9"]),
        ("--top-k", &["-1", "x"]),
        ("--top-p", &["0", "1.5", "NaN"]),
        ("--seed", &["-1", "x"]),
        ("--weights", &["fp5"]),
        ("--activations", &["i8"]),
        ("--scale", &["best"]),
        ("--windows", &["0"]),
        ("--kv", &["fp5"]),
        ("--paged", &["0", "12", "264", "x"]),
        ("--context", &["0", "5000"]),
    ] {
        for value in values {
            fails(&fixture, &["--prompt", "x", &format!("{name}={value}")], &[name]);
        }
    }
    fails(&fixture, &["--perplexity", "--windows", "33"], &["--windows", "eval_ids has 32"]);
    fails(&fixture, &[], &["--prompt"]);
    // 704 columns are no whole number of groups of 128.
    fails(&fixture, &["--prompt", "x", "--weights", "int4", "--group", "128"], &["down_proj", "704"]);
    fails(&fixture, &["--prompt", "x", "--adapter", "no such"], &["no such"]);
}

#[test]
fn shards_and_dtypes_read_alike() {
    let copy = Copy::new("shards");
    let shard = |name: &str, dtype: &str, values: &[u8]| {
        let header = json!({name: {"dtype": dtype, "shape": [3], "data_offsets": [0, values.len()]}});
        fs::write(copy.0.join(format!("{name}.safetensors")), join(&header, values)).expect("write");
    };
    let values = [1.0f32, -2.5, 0.125];
    let bytes = |f: fn(f32) -> Vec<u8>| values.iter().flat_map(|&v| f(v)).collect::<Vec<u8>>();
    shard("a", "F32", &bytes(|v| v.to_le_bytes().to_vec()));
    shard("b", "F16", &bytes(|v| half::f16::from_f32(v).to_le_bytes().to_vec()));
    shard("c", "BF16", &bytes(|v| half::bf16::from_f32(v).to_le_bytes().to_vec()));
    let map: Value = ["a", "b", "c"].iter().map(|n| (*n, format!("{n}.safetensors"))).collect();
    fs::write(copy.0.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string())
        .expect("write");
    let checkpoint = checkpoint::Checkpoint::open_dir(&copy.0).expect("opens");
    for name in ["a", "b", "c"] {
        assert_eq!(checkpoint.floats(name, &[3]).expect(name), values);
        assert!(checkpoint.floats(name, &[4]).is_err());
    }
    assert!(checkpoint.floats("d", &[3]).is_err());
    assert!(checkpoint.integers("a").is_err());
}

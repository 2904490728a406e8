//! The `generate` example on the checkpoints of `tests/fixtures` that are no plain Llama: each agrees with transformers,
//! and every feature that tells it apart matters for that.

#[path = "support/generate.rs"]
#[allow(dead_code)]
mod support;

use serde_json::{Value, json};

use support::{CONFIG, Copy, MODEL, Outcome, fixture, generate, join, split};

const MODELS: [&str; 3] = ["mistral", "gemma2", "diffllama"];

/// Standard output of a run that must succeed.
fn succeeds(model: &str, args: &[&str]) -> String {
    let Outcome { code, stdout, stderr } = generate(&fixture(model), args);
    assert_eq!(code, Some(0), "{model} {args:?}\n{stdout}\n{stderr}");
    stdout
}

#[test]
fn f32_agrees_with_transformers() {
    for model in MODELS {
        for cache in [&[][..], &["--kv", "f32", "--paged", "16"]] {
            let out = succeeds(model, &[&["--weights", "f32", "--check"], cache].concat());
            assert!(out.contains("argmax    160 of 160") && out.contains("first 96 of 96"), "{model} {out}");
            assert!(
                out.contains("passed (error < 1e-4, argmax ≥ 100 %, all greedy tokens)"),
                "{model} {out}"
            );
        }
    }
}

#[test]
fn f16_agrees_with_transformers() {
    for model in MODELS {
        let out = succeeds(model, &["--weights", "f16", "--check"]);
        assert!(out.contains("passed (error < 2e-2, argmax ≥ 98 %)"), "{model} {out}");
    }
}

/// Over one window of the 32, against f32.
#[test]
fn eight_bits_cost_little() {
    for (model, args) in [
        ("mistral", ["--weights", "f16", "--kv", "int8"]),
        ("gemma2", ["--weights", "f16", "--kv", "int8"]),
        ("diffllama", ["--weights", "int8", "--paged", "32"]),
        ("diffllama", ["--weights", "f16", "--kv", "int8"]),
    ] {
        let of = |args: &[&str]| -> f64 {
            let out = succeeds(model, &[args, &["--perplexity", "--windows", "1"]].concat());
            let value = out.split_whitespace().nth(1).and_then(|v| v.parse().ok());
            value.unwrap_or_else(|| panic!("no perplexity in {out}"))
        };
        let cost = of(&args) / of(&["--weights", "f32"]) - 1.0;
        assert!(cost != 0.0 && cost.abs() < 0.01, "{model} {args:?} costs {cost}");
    }
}

/// The checkpoints were trained for what their configurations say: nothing of it may be ignored.
#[test]
fn a_changed_configuration_fails_the_check() {
    for (model, field, value) in [
        ("mistral", "sliding_window", json!(null)),
        ("mistral", "sliding_window", json!(95)),
        ("gemma2", "sliding_window", json!(97)),
        ("gemma2", "layer_types", json!(["sliding_attention", "sliding_attention", "sliding_attention"])),
        ("gemma2", "layer_types", json!(["full_attention", "sliding_attention", "full_attention"])),
        ("gemma2", "attn_logit_softcapping", json!(null)),
        ("gemma2", "final_logit_softcapping", json!(null)),
        ("gemma2", "query_pre_attn_scalar", json!(63)),
        ("gemma2", "hidden_activation", json!("gelu")),
        // Read as a Llama, it has all the tensors that one needs.
        ("diffllama", "architectures", json!(["LlamaForCausalLM"])),
    ] {
        let copy =
            Copy::of(model, field).edit_json(CONFIG, |config: &mut Value| config[field] = value.clone());
        let Outcome { code, stdout, stderr } = generate(&copy.0, &["--weights", "f32", "--check"]);
        assert_eq!(code, Some(1), "{model} {field}: {value}\n{stdout}\n{stderr}");
        assert!(stdout.contains("FAILED"), "{model} {field}: {value}\n{stdout}\n{stderr}");
    }
}

/// One of λ's vectors negated in one layer is enough.
#[test]
fn a_changed_lambda_fails_the_check() {
    let name = "model.layers.1.self_attn.lambda_k2";
    let copy = Copy::of("diffllama", "lambda").edit(MODEL, |bytes| {
        let (header, data) = split(&bytes);
        let range = [0, 1].map(|i| header[name]["data_offsets"][i].as_u64().expect("offset") as usize);
        let mut data = data.to_vec();
        data[range[0]..range[1]].chunks_mut(2).for_each(|bf16| bf16[1] ^= 0x80);
        join(&header, &data)
    });
    let Outcome { code, stdout, stderr } = generate(&copy.0, &["--weights", "f32", "--check"]);
    assert_eq!(code, Some(1), "{stdout}\n{stderr}");
    assert!(stdout.contains("FAILED"), "{stdout}\n{stderr}");
}

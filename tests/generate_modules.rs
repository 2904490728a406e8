//! Modules of the `generate` example that need no GPU: a model's description, and text as it streams.

#[path = "../examples/generate/checkpoint.rs"]
#[allow(dead_code)]
mod checkpoint;
#[path = "../examples/generate/config.rs"]
#[allow(dead_code)]
mod config;
#[path = "../examples/generate/error.rs"]
#[allow(dead_code)]
mod error;
#[path = "../examples/generate/text.rs"]
#[allow(dead_code)]
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wgmarlin::matmul::Activation;

fn fixture(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(model)
}

fn edited(change: impl FnOnce(&mut Value)) -> Result<config::Description, String> {
    edited_of("llama", change)
}

fn edited_of(model: &str, change: impl FnOnce(&mut Value)) -> Result<config::Description, String> {
    let text = fs::read_to_string(fixture(model).join("config.json")).expect("read");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut value);
    config::Description::parse(&value.to_string()).map_err(|e| e.to_string())
}

#[test]
fn configuration_is_read() {
    let plain = edited(|_| ()).expect("valid");
    assert_eq!((plain.layers, plain.hidden, plain.ffn, plain.vocab), (4, 256, 704, 4096));
    assert_eq!((plain.heads, plain.kv_heads, plain.head_dim, plain.context), (4, 2, 64, 2048));
    assert_eq!((plain.q_width(), plain.kv_width(), plain.eos.as_slice()), (256, 128, &[0][..]));
    assert!(plain.tied && !plain.attention_bias);

    let rope = |change: fn(&mut Value)| edited(change).expect("valid").rope_theta;
    let theta = 5e5;
    assert_eq!(rope(|c| c["rope_parameters"]["rope_theta"] = json!(5e5)), theta);
    assert_eq!(rope(|c| (c["rope_parameters"], c["rope_theta"]) = (json!(null), json!(5e5))), theta);
    assert_eq!(rope(|c| c["rope_parameters"] = json!(null)), 10_000.0);
    let absent = edited(|c| c["head_dim"] = json!(null)).expect("valid");
    assert_eq!(absent, plain);
    let all = edited(|c| c["num_key_value_heads"] = json!(null)).expect("valid");
    assert_eq!(all.kv_heads, 4);
    let many = edited(|c| c["eos_token_id"] = json!([0, 7])).expect("valid");
    assert_eq!(many.eos, [0, 7]);
}

#[test]
fn configuration_is_validated() {
    let cases: &[(&str, Value, &str)] = &[
        ("hidden_size", json!(0), "hidden_size: 0 is not a whole number within"),
        ("hidden_size", json!(257), "multiple"),
        ("hidden_size", json!(1u64 << 40), "hidden_size"),
        ("hidden_size", json!(-8), "-8"),
        ("hidden_size", json!(256.5), "256.5"),
        ("hidden_size", json!("256"), "\"256\""),
        ("hidden_size", json!(null), "hidden_size: null"),
        ("intermediate_size", json!(0), "intermediate_size"),
        ("num_hidden_layers", json!(1_000_000_000), "num_hidden_layers"),
        ("num_attention_heads", json!(0), "num_attention_heads"),
        ("num_attention_heads", json!(3), "multiple of num_key_value_heads"),
        ("num_key_value_heads", json!(0), "num_key_value_heads"),
        ("num_key_value_heads", json!(3), "multiple of num_key_value_heads"),
        ("head_dim", json!(0), "head_dim"),
        ("head_dim", json!(12), "multiple"),
        ("head_dim", json!(512), "head_dim"),
        ("vocab_size", json!(0), "vocab_size"),
        ("vocab_size", json!(u64::MAX), "vocab_size"),
        ("max_position_embeddings", json!(0), "max_position_embeddings"),
        ("rms_norm_eps", json!(-1.0), "rms_norm_eps"),
        ("rope_parameters", json!({"rope_theta": 0.0}), "rope_theta"),
        ("rope_parameters", json!({"rope_type": "yarn"}), "yarn"),
        ("rope_scaling", json!({"type": "linear"}), "linear"),
        ("hidden_act", json!("relu"), "relu"),
        ("mlp_bias", json!(true), "mlp_bias"),
        ("tie_word_embeddings", json!(1), "tie_word_embeddings"),
        ("eos_token_id", json!(4096), "token id 4096 is out of range"),
        ("eos_token_id", json!([0, -1]), "-1 is no token id"),
    ];
    for (field, value, words) in cases {
        let error = edited(|c| c[*field] = value.clone()).expect_err(field);
        assert!(error.contains(words), "{field} = {value}: {error}");
    }
    let error = edited(|c| (c["head_dim"], c["num_attention_heads"]) = (json!(null), json!(6)));
    assert!(error.expect_err("256 / 6").contains("multiple of num_attention_heads"));
}

#[test]
fn architectures_say_what_configurations_do_not() {
    let plain = |model| edited_of(model, |_| ()).expect("valid");
    let llama = plain("llama");
    assert_eq!((llama.embed_scale, llama.attention_scale), (1.0, 0.125));
    assert_eq!(
        (llama.attention_cap, llama.logit_cap, llama.windows.as_slice()),
        (None, None, &[None; 4][..])
    );
    assert_eq!((llama.unit_offset, llama.post_norms, llama.activation), (false, false, Activation::Silu));

    let mistral = plain("mistral");
    assert_eq!(mistral.windows, [Some(96); 3]);
    let of = |model: &str, field: &str, value: Value| edited_of(model, |c| c[field] = value).expect("valid");
    assert_eq!(of("mistral", "sliding_window", json!(null)).windows, [None; 3]);
    let without = |model: &str, field: &str| {
        edited_of(model, |c| drop(c.as_object_mut().expect("object").remove(field))).expect("valid")
    };
    assert_eq!(without("mistral", "sliding_window").windows, [Some(4096); 3]);

    let gemma = plain("gemma2");
    assert_eq!(gemma.windows, [Some(96), None, Some(96)]);
    assert_eq!((gemma.embed_scale, gemma.attention_scale), (128f32.sqrt(), 0.125));
    assert_eq!((gemma.attention_cap, gemma.logit_cap), (Some(50.0), Some(30.0)));
    assert_eq!((gemma.unit_offset, gemma.post_norms, gemma.activation), (true, true, Activation::GeluTanh));
    assert_eq!(without("gemma2", "layer_types"), gemma);
    assert_eq!(without("gemma2", "attn_logit_softcapping"), gemma);
    assert_eq!(without("gemma2", "tie_word_embeddings"), gemma);
    assert_eq!(without("gemma2", "query_pre_attn_scalar").attention_scale, 0.0625);
    assert_eq!(of("gemma2", "final_logit_softcapping", json!(null)).logit_cap, None);
    assert_eq!(of("gemma2", "hidden_activation", json!("gelu")).activation, Activation::Gelu);
}

#[test]
fn two_heads_of_a_difference_are_one_in_the_cache() {
    let plain = edited_of("diffllama", |_| ()).expect("valid");
    assert_eq!((plain.differential, plain.kv_heads, plain.head_dim), (true, 2, 32));
    assert_eq!((plain.kv_shape(), plain.kv_width()), ([1, 64, 64], 64));
    assert_eq!(plain.norm_eps, 1e-5);
    let absent = edited_of("diffllama", |c| c["rms_norm_eps"] = json!(null)).expect("valid");
    assert_eq!(absent, plain);
    assert_eq!(edited_of("llama", |_| ()).expect("valid").kv_shape(), [2, 64, 64]);
}

#[test]
fn configurations_of_other_architectures_are_validated() {
    let cases: &[(&str, &str, Value, &str)] = &[
        ("mistral", "sliding_window", json!(0), "sliding_window: 0 is not a whole number within"),
        ("mistral", "sliding_window", json!(-1), "sliding_window"),
        ("mistral", "sliding_window", json!("96"), "sliding_window"),
        ("mistral", "hidden_act", json!("relu6"), "relu6"),
        ("gemma2", "layer_types", json!(["full_attention"]), "no list of 3"),
        ("gemma2", "layer_types", json!("full_attention"), "no list of 3"),
        ("gemma2", "layer_types", json!([1, 2, 3]), "1 is not supported"),
        ("gemma2", "layer_types", json!(["chunked_attention", "", ""]), "chunked_attention"),
        ("gemma2", "sliding_window", json!(null), "sliding_attention\" without sliding_window"),
        ("gemma2", "attn_logit_softcapping", json!(0.0), "attn_logit_softcapping: 0.0 is not within"),
        ("gemma2", "final_logit_softcapping", json!(-30.0), "final_logit_softcapping"),
        ("gemma2", "final_logit_softcapping", json!("30"), "final_logit_softcapping"),
        ("gemma2", "query_pre_attn_scalar", json!(0), "query_pre_attn_scalar"),
        ("gemma2", "hidden_activation", json!(3), "hidden_activation: 3 is not supported"),
        ("gemma2", "use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
        ("diffllama", "num_attention_heads", json!(3), "num_attention_heads"),
        ("diffllama", "num_key_value_heads", json!(1), "num_key_value_heads: 1 is not a multiple of the two"),
        ("diffllama", "head_dim", json!(136), "head_dim"),
    ];
    for (model, field, value, words) in cases {
        let error = edited_of(model, |c| c[*field] = value.clone()).expect_err(field);
        assert!(error.contains(words), "{model} {field} = {value}: {error}");
    }
}

#[test]
fn a_tokenizer_may_lie_one_directory_above() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("family");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("model")).expect("create");
    let error = text::Text::open(&dir.join("model")).err().expect("none").to_string();
    assert!(error.contains("model") && error.contains("tokenizer.json"), "{error}");
    fs::copy(fixture("").join("tokenizer.json"), dir.join("tokenizer.json")).expect("copy");
    text::Text::open(&dir.join("model")).expect("shared");
    // Its own comes first.
    fs::write(dir.join("model/tokenizer.json"), "{}").expect("write");
    assert!(text::Text::open(&dir.join("model")).is_err());
    fs::remove_dir_all(&dir).expect("remove");
}

#[test]
fn streamed_text_is_the_whole_text() {
    let tokenizer = text::Text::open(&fixture("llama")).expect("tokenizer");
    let prompt = tokenizer.encode("fn main", true, 4096).expect("prompt");
    for wanted in ["() { println!(\"héllo → 世界 🦀\"); }", "", " ", "🦀🦀 é", "\n\n    let x = 5;\n"]
    {
        let whole = tokenizer.encode(&format!("fn main{wanted}"), true, 4096).expect("text");
        assert_eq!(whole[..prompt.len()], prompt);
        let mut stream = text::Stream::new(&tokenizer, &prompt);
        let mut pieces: Vec<String> =
            whole[prompt.len()..].iter().map(|&id| stream.push(id).expect("piece")).collect();
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
        pieces.push(stream.finish().expect("rest"));
        assert_eq!(pieces.concat(), wanted);
    }
    // A text that stops inside a character still shows that something was there.
    let crab = tokenizer.encode("🦀", true, 4096).expect("crab");
    assert!(crab.len() > 1, "the tokenizer has a token for the crab");
    let mut stream = text::Stream::new(&tokenizer, &prompt);
    assert_eq!(stream.push(crab[0]).expect("piece"), "");
    assert_eq!(stream.finish().expect("rest"), "\u{fffd}");
}

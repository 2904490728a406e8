//! `generate --speculative`: the text is that of the plain run, and drafts by looking back are what they should be.

#[path = "../examples/generate/drafts.rs"]
mod drafts;
#[path = "support/generate.rs"]
#[allow(dead_code)]
mod support;

use drafts::{Drafts, TreeSize};
use support::{Copy, MODEL, Outcome, fails, fixture, generate, split};
use wgmarlin::tree::{ROOT, Tree};

const PROMPTS: [&str; 4] = [
    "The borrow checker",
    "The type of a",
    "let mut x = vec![1, 2, 3, 1, 2, 3, 1, 2",
    "A trait is a trait is a trait is",
];

/// The text of a run that must succeed, and what it says about drafts: accepted, of how many, passes.
fn text(model: &str, args: &[&str]) -> (String, Option<[usize; 3]>) {
    let Outcome { code, stdout, stderr } = generate(&fixture(model), args);
    assert_eq!(code, Some(0), "{model} {args:?}\n{stdout}\n{stderr}");
    let drafts = stderr.lines().find(|line| line.starts_with("drafts ")).map(|line| {
        let numbers: Vec<usize> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        [numbers[0], numbers[1], *numbers.last().expect("passes")]
    });
    (stdout, drafts)
}

/// Runs without drafts and with drafts of each size; the acceptance of those with.
fn equal<const N: usize>(model: &str, prompt: &str, sizes: [&str; N], more: &[&str]) -> [[usize; 3]; N] {
    let args = [&["--prompt", prompt, "--weights", "f32", "--max-new", "40"], more].concat();
    let (plain, none) = text(model, &args);
    assert_eq!(none, None);
    sizes.map(|size| {
        let (speculative, drafts) = text(model, &[&args[..], &["--speculative", size]].concat());
        assert_eq!(speculative, plain, "{model} {prompt:?} {size} {more:?}");
        drafts.expect("a line about drafts")
    })
}

#[test]
fn drafts_do_not_change_the_text() {
    let mut sum = [0; 3];
    let mut add = |drafts: &[[usize; 3]]| {
        drafts.iter().for_each(|drafts| sum = [0, 1, 2].map(|i| sum[i] + drafts[i]));
    };
    add(&equal("llama", PROMPTS[0], ["1x1", "4x8", "3×20"], &[]));
    for (prompt, size) in PROMPTS[1..].iter().zip(["1x1", "3×20", "4x8"]) {
        add(&equal("llama", prompt, [size], &[]));
    }
    // Drafts are made, some are right and some are wrong, and right ones save passes.
    let [accepted, drafts, passes] = sum;
    assert!(accepted > 60 && accepted < drafts / 2, "{accepted} of {drafts} drafts, {passes} passes");
    assert!(passes + accepted >= 6 * 40 && passes < 6 * 34, "{passes} passes");
}

#[test]
fn nor_do_they_in_any_cache() {
    for more in [
        &["--kv", "f32", "--paged", "8"][..],
        &["--kv", "int8", "--paged", "16"],
        &["--kv", "fp8"],
        &["--paged", "256"],
    ] {
        let [[accepted, ..]] = equal("llama", PROMPTS[0], ["4x6"], more);
        assert!(accepted > 5, "{accepted} drafts accepted with {more:?}");
    }
}

/// A window, shorter than the text; soft-caps and windows in turn.
#[test]
fn nor_do_they_in_other_models() {
    let long = "the quick brown fox jumps over the lazy dog and ".repeat(8);
    for model in ["mistral", "gemma2", "diffllama"] {
        let [[accepted, ..]] = equal(model, &long, ["4x8"], &["--paged", "16"]);
        assert!(accepted > 5, "{accepted} drafts accepted by {model}");
    }
}

#[test]
fn sampled_text_repeats_with_its_seed() {
    let run = |seed: &str| {
        let args = ["--prompt", PROMPTS[0], "--weights", "f32", "--max-new", "30", "--speculative", "3x4"];
        text("llama", &[&args[..], &["--temperature", "0.7", "--seed", seed]].concat()).0
    };
    let one = run("1");
    assert_eq!(one, run("1"));
    assert!(one != run("2") || one != run("3"), "the seed has no effect: {one}");
}

#[test]
fn the_context_s_end_cuts_trees_off() {
    let args = ["--prompt", "The type of a", "--weights", "f32", "--context", "9", "--max-new", "50"];
    let plain = text("llama", &args).0;
    assert_eq!(text("llama", &[&args[..], &["--speculative", "4x8"]].concat()).0, plain);
}

#[test]
fn wrong_sizes_and_filters_are_refused() {
    let fixture = fixture("llama");
    for size in ["", "4", "x", "4x", "x4", "0x4", "4x0", "-1x4", "4x8x2", "16x17", "99999999999x9"] {
        fails(
            &fixture,
            &["--prompt", "x", &format!("--speculative={size}")],
            &["--speculative", "WIDTHxDEPTH"],
        );
    }
    for filter in [["--top-k", "5"], ["--top-p", "0.9"]] {
        let args = ["--prompt", "x", "--speculative", "2x2", "--temperature", "1"];
        fails(&fixture, &[&args[..], &filter].concat(), &["--speculative", "--top-k and --top-p"]);
    }
    fails(&fixture, &["--check", "--speculative", "2x2"], &["--prompt"]);
}

/// Of what is no number some token would be chosen, with drafts as without.
#[test]
fn logits_that_are_no_numbers_are_refused() {
    let copy = Copy::of("llama", "no-numbers").edit(MODEL, |mut bytes| {
        let (header, data) = split(&bytes);
        let gain = header["model.norm.weight"]["data_offsets"][0].as_u64().expect("start") as usize;
        let at = bytes.len() - data.len() + gain;
        bytes[at..at + 2].copy_from_slice(&[0xff, 0x7f]);
        bytes
    });
    let args = ["--prompt", PROMPTS[0], "--weights", "f32"];
    for more in [&[][..], &["--speculative", "2x2"], &["--speculative", "2x2", "--temperature", "1"]] {
        fails(&copy.0, &[&args[..], more].concat(), &["the model's logits", "are not numbers"]);
    }
}

fn look_back(text: &[u32], size: &str, most: usize) -> Drafts {
    let drafts = Drafts::look_back(text, TreeSize::parse(size).expect("valid"), most);
    Tree::new(&drafts.parents).expect("parents come first");
    drafts
}

#[test]
fn drafts_follow_what_stood_before() {
    let tree = |tokens: &[u32], parents: &[u32]| Drafts { tokens: tokens.into(), parents: parents.into() };
    // Nothing stood before.
    assert_eq!(look_back(&[1, 2, 3], "4x4", 99), tree(&[3], &[ROOT]));
    assert_eq!(look_back(&[7], "4x4", 99), tree(&[7], &[ROOT]));
    // The longest match first, then the latest: after 1 2 3 came 4 5, after 9 3 came 8 7.
    let text = [1, 2, 3, 4, 5, 9, 3, 8, 7, 6, 1, 2, 3];
    assert_eq!(look_back(&text, "1x2", 99), tree(&[3, 4, 5], &[ROOT, 0, 1]));
    assert_eq!(look_back(&text, "2x2", 99), tree(&[3, 4, 5, 8, 7], &[ROOT, 0, 1, 0, 3]));
    // What is there already is no branch of its own; branches part where they differ.
    let text = [3, 4, 5, 0, 3, 4, 6, 0, 3, 4, 5, 0, 3];
    assert_eq!(look_back(&text, "3x2", 99), tree(&[3, 4, 6, 5], &[ROOT, 0, 1, 1]));
    // A repetition goes on.
    assert_eq!(look_back(&[1, 2, 1], "1x4", 99), tree(&[1, 2, 1, 2, 1], &[ROOT, 0, 1, 2, 3]));
    // No more nodes than there is room for.
    assert_eq!(look_back(&[1, 2, 1], "1x4", 3), tree(&[1, 2, 1], &[ROOT, 0, 1]));
    assert_eq!(look_back(&[1, 2, 1], "1x4", 1), tree(&[1], &[ROOT]));
    assert_eq!(TreeSize::parse("4x8").expect("valid").nodes(), 33);
}

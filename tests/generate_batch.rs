//! The `batch` example: 64 sequences of different lengths in one pool have the tokens of their lone runs.

#[path = "support/generate.rs"]
#[allow(dead_code)]
mod support;

use support::{Outcome, fixture, run_example};

fn batch(model: &str, args: &[&str]) -> Outcome {
    run_example("batch", &fixture(model), args)
}

#[test]
fn sequences_have_the_tokens_of_their_lone_runs() {
    // Sliding windows over the blocks, and two queries a head; blocks that the common beginning does not fill.
    for (model, block) in [("mistral", "8"), ("diffllama", "16")] {
        let Outcome { code, stdout, stderr } =
            batch(model, &["--check", "--max-new", "12", "--block", block]);
        assert_eq!(code, Some(0), "{model}\n{stdout}\n{stderr}");
        assert!(
            stdout.contains("64 of 64 sequences have the tokens of their lone runs"),
            "{model}\n{stdout}"
        );
        let mut texts: Vec<&str> =
            stdout.lines().filter_map(|line| line.get(5..)?.strip_prefix('"')).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), 64, "{model}: two prompts are alike\n{stdout}");
        let lengths: Vec<&str> =
            stdout.lines().rev().filter(|line| line.contains("without sharing")).collect();
        let blocks: Vec<usize> = lengths[0].split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let &[used, _, alone] = &blocks[..] else { panic!("{model}: {}", lengths[0]) };
        assert!(used < alone, "{model}: nothing is shared: {}", lengths[0]);
    }
}

#[test]
fn wrong_arguments() {
    for (args, words) in [
        (&["--sequences", "0"][..], "--sequences"),
        (&["--block", "12"], "--block"),
        (&["--max-new", "1"], "--max-new"),
        (&["--max-new", "60000"], "the model has 2048 positions"),
    ] {
        let Outcome { code, stderr, .. } = batch("mistral", args);
        assert!(
            code != Some(0) && stderr.contains(words) && !stderr.contains("panicked"),
            "{args:?}\n{stderr}"
        );
    }
    let Outcome { code, stderr, .. } = run_example("batch", &fixture("none"), &[]);
    assert!(code == Some(1) && stderr.contains("config.json"), "{stderr}");
}

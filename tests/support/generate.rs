//! Running the examples that run models, and copies of checkpoints to break.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub const CONFIG: &str = "config.json";
pub const MODEL: &str = "model.safetensors";
pub const REFERENCE: &str = "reference.safetensors";
pub const TOKENIZER: &str = "tokenizer.json";

/// A model's directory; the tokenizer lies in the one above.
pub fn fixture(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(model)
}

pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the `generate` example.
pub fn generate(model: &Path, args: &[&str]) -> Outcome {
    run_example("generate", model, args)
}

/// Runs an example, which `cargo test` builds beside the tests.
pub fn run_example(name: &str, model: &Path, args: &[&str]) -> Outcome {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let binary = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        binary.exists(),
        "{} is missing: build it with `cargo build --examples` in this profile",
        binary.display()
    );
    // A model runs its few pipelines often, so that software Vulkan had better optimise them, unlike those of the other tests.
    let mut command = Command::new(binary);
    command.env_remove("GALLIVM_PERF").arg("--model").arg(model).args(args);
    let output = command.output().expect("the example starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The run must fail with status 1 and one message that contains `words`.
pub fn fails(model: &Path, args: &[&str], words: &[&str]) {
    let Outcome { code, stdout, stderr } = generate(model, args);
    assert_eq!(code, Some(1), "{args:?}\n{stdout}\n{stderr}");
    assert!(stderr.contains("error: "), "{args:?}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}\n{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?}: no {word:?} in\n{stderr}");
    }
}

/// A copy of a fixture to break, removed at the end.
pub struct Copy(pub PathBuf);

impl Copy {
    pub fn of(model: &str, name: &str) -> Copy {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{model}-{name}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("create");
        for file in [CONFIG, MODEL, REFERENCE] {
            fs::copy(fixture(model).join(file), dir.join(file)).expect("copy");
        }
        fs::copy(fixture("").join(TOKENIZER), dir.join(TOKENIZER)).expect("copy");
        Copy(dir)
    }

    pub fn edit(self, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Copy {
        let path = self.0.join(file);
        fs::write(&path, change(fs::read(&path).expect("read"))).expect("write");
        self
    }

    pub fn edit_json(self, file: &str, change: impl FnOnce(&mut Value)) -> Copy {
        self.edit(file, |bytes| {
            let mut value = serde_json::from_slice(&bytes).expect("JSON");
            change(&mut value);
            value.to_string().into_bytes()
        })
    }

    /// Edits the header of a safetensors file; the data stays.
    pub fn edit_header(self, file: &str, change: impl FnOnce(&mut Value)) -> Copy {
        self.edit(file, |bytes| {
            let (mut header, data) = split(&bytes);
            change(&mut header);
            join(&header, data)
        })
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn split(bytes: &[u8]) -> (Value, &[u8]) {
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a header's length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (serde_json::from_slice(header).expect("JSON"), data)
}

pub fn join(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes(), &header[..], data].concat()
}

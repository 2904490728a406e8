//! Shaders of 64 threads with a fault each, that the host must catch, and one without.

use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::{Buffers, Launch, run};

/// What is wrong, the body of the shader, and what must be said of it.
pub const FAULTS: [(&str, &str, &str); 10] = [
    ("past a buffer", "x[t + 1u] = 1u;", "of a buffer of 256"),
    ("past an array", "var a = array<u32, 63>(); x[t] = a[t];", "element 63 of 63"),
    ("past workgroup memory", "shared_words[t * 2u] = t;", "element 64 of 64"),
    ("read without a barrier", "shared_words[t] = t; x[t] = shared_words[63u - t];", "reads scalar"),
    ("written without a barrier", "shared_words[t / 2u] = t;", "writes scalar"),
    (
        "overwritten before all have read",
        "x[t] = shared_words[63u - t]; shared_words[t] = t;",
        "writes scalar",
    ),
    (
        "overwritten by the last of its readers",
        "let y = shared_words[0]; if t == 63u { shared_words[0] = y + 1u; }",
        "writes scalar",
    ),
    (
        "a barrier of the subgroup where subgroups meet",
        "shared_words[t] = t; subgroupBarrier(); x[t] = shared_words[63u - t];",
        "reads scalar",
    ),
    (
        "of a lane that is not there",
        "if t < 16u { x[t] = subgroupShuffleXor(t, 16u); }",
        "which is not active",
    ),
    ("without an end", "loop { if x[t] == 7u { break; } }", "does not end"),
];

/// What passes, and leaves its threads' numbers the other way round.
const RIGHT: &str = "shared_words[t] = t; workgroupBarrier(); x[t] = shared_words[63u - t];";

/// Runs such a body over 64 zeros.
fn run_body(body: &str) -> Result<Vec<u8>, String> {
    let text = format!(
        "@group(0) @binding(0) var<storage, read_write> x: array<u32>;
        var<workgroup> shared_words: array<u32, 64>;
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) t: u32) {{ {body} }}"
    );
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module);
    let info = info.map_err(|e| e.emit_to_string(&text))?;
    let mut buffers = Buffers(vec![vec![0; 256]]);
    run(&Launch { module: &module, info: &info, groups: (1, 1), threads: 64, params: &[] }, &mut buffers)?;
    Ok(buffers.0.remove(0))
}

/// Whether a fault is caught as it should be.
pub fn caught(body: &str, said: &str) -> Result<(), String> {
    match run_body(body) {
        Err(why) if why.contains(said) => Ok(()),
        other => Err(format!("{other:?}, where {said:?} should be said")),
    }
}

pub fn right_passes() -> Result<(), String> {
    let words: Vec<u8> = (0..64u32).rev().flat_map(u32::to_le_bytes).collect();
    (run_body(RIGHT)? == words).then_some(()).ok_or_else(|| "another result".into())
}

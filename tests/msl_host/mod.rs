//! Talks to `mslhost.py serve`, which builds and runs MSL kernels on this machine's CPU.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};

/// How kernels are built and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Schedules of the threads: `fwd`, `rev`, `rand:SEED`. Outputs must not depend on them.
    pub orders: Vec<&'static str>,
    /// As Metal's default, which assumes that there are no NaNs and infinities.
    pub fast_math: bool,
    /// Another layout of simdgroup matrices in the registers, which no kernel may notice.
    pub alt_layout: bool,
    /// Seconds for one schedule of one launch.
    pub timeout: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { orders: vec!["fwd"], fast_math: false, alt_layout: false, timeout: 120 }
    }
}

/// One buffer of a launch.
pub struct Buffer {
    pub slot: usize,
    pub bytes: Vec<u8>,
    pub written: bool,
}

/// What a launch is made of.
pub struct Run<'a> {
    pub text: &'a str,
    pub entry: &'a str,
    pub threads: u32,
    pub groups: (u32, u32),
    /// Bytes of each `[[threadgroup(i)]]` argument.
    pub threadgroup: &'a [u32],
    /// `T[1]` may stand for an array of any length.
    pub runtime_arrays: bool,
    pub buffers: Vec<Buffer>,
}

/// What came of it.
pub struct Ran {
    /// The buffers that the kernel may have written, by slot.
    pub out: HashMap<usize, Vec<u8>>,
    pub threadgroup_bytes: u32,
}

/// What the tool complained of: in kinds, and in words.
#[derive(Debug)]
pub struct Complaint {
    pub kinds: Vec<String>,
    pub log: String,
}

/// The processes that wait for work; a test takes one or starts another.
static IDLE: Mutex<Vec<Host>> = Mutex::new(Vec::new());

struct Host {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
}

fn tool(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/msl_host").join(script));
    // Builds are kept: most variants are the same as in the last run.
    command.env("MSL_HOST_BUILD", Path::new(env!("CARGO_TARGET_TMPDIR")).join("msl_host"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Why the tool cannot run here, if so.
pub fn missing() -> Option<&'static str> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        if !cfg!(target_os = "linux") {
            return Some("it runs on Linux only".to_string());
        }
        // Without an argument it says how it is used, unless there is no compiler.
        let output = tool("mslhost.py").output().map_err(|e| format!("python3: {e}"));
        let said = output.map_or_else(|e| e, |o| String::from_utf8_lossy(&o.stderr).into_owned());
        (!said.contains("serve")).then(|| said.trim().to_string())
    };
    MISSING.get_or_init(look).as_deref()
}

impl Host {
    fn start() -> Result<Host, String> {
        let mut child = tool("mslhost.py")
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("python3: {e}"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (ask, answers) = pipes.ok_or("python3 has no pipes")?;
        let folder = std::env::temp_dir().join(format!("wgmarlin-msl-{}-{}", std::process::id(), child.id()));
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Host { child, ask, answers: BufReader::new(answers), folder })
    }

    fn ask(&mut self, request: &Value) -> Result<Value, String> {
        writeln!(self.ask, "{request}").map_err(|e| format!("msl_host is gone: {e}"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|e| format!("msl_host is gone: {e}"))?;
        serde_json::from_str(&line).map_err(|e| format!("msl_host answered {line:?}: {e}"))
    }

    fn run(&mut self, run: &Run<'_>, options: &Options) -> Result<Result<Ran, Complaint>, String> {
        let file = |name: &str, slot| self.folder.join(format!("{name}{slot}"));
        let mut buffers = Vec::new();
        for Buffer { slot, bytes, written } in &run.buffers {
            let given = file("in", slot);
            std::fs::write(&given, bytes).map_err(|e| format!("{}: {e}", given.display()))?;
            let out = written.then(|| file("out", slot));
            buffers.push(json!({ "slot": slot, "file": given, "bytes": bytes.len(), "out": out }));
        }
        let written: Vec<(usize, PathBuf)> =
            run.buffers.iter().filter(|b| b.written).map(|b| (b.slot, file("out", &b.slot))).collect();
        for (_, path) in &written {
            let _ = std::fs::remove_file(path);
        }
        let answer = self.ask(&json!({
            "text": run.text,
            "entry": run.entry,
            "threads": run.threads,
            "groups": [run.groups.0, run.groups.1, 1],
            "tgmem": run.threadgroup,
            "runtime_arrays": run.runtime_arrays,
            "buffers": buffers,
            "orders": options.orders,
            "fast_math": options.fast_math,
            "alt_layout": options.alt_layout,
            "timeout": options.timeout,
        }))?;
        if answer["ok"] != true {
            let kinds = answer["kinds"].as_array().into_iter().flatten();
            let kinds = kinds.filter_map(|k| k.as_str().map(String::from)).collect();
            return Ok(Err(Complaint { kinds, log: answer["log"].as_str().unwrap_or_default().to_string() }));
        }
        let mut out = HashMap::new();
        // A kernel that takes a buffer as constant leaves no file.
        out.extend(written.into_iter().filter_map(|(slot, path)| Some((slot, std::fs::read(path).ok()?))));
        let threadgroup_bytes = answer["threadgroup_bytes"].as_u64().unwrap_or(u64::MAX) as u32;
        Ok(Ok(Ran { out, threadgroup_bytes }))
    }
}

/// Runs the tool's test of itself.
///
/// # Errors
/// What it said, if it failed.
pub fn self_test() -> Result<(), String> {
    let output = tool("selftest.py").output().map_err(|e| format!("python3: {e}"))?;
    let said = [output.stdout, output.stderr].concat();
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&said).into_owned())
}

/// Builds and runs a kernel.
///
/// # Errors
/// The outer one if the tool itself fails.
pub fn run(run: &Run<'_>, options: &Options) -> Result<Result<Ran, Complaint>, String> {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut host = idle.map_or_else(Host::start, Ok)?;
    let result = host.run(run, options)?;
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(host);
    Ok(result)
}

/// Ends the processes, which wait on their pipes, and removes their files.
pub fn stop() {
    for mut host in IDLE.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        drop(host.ask);
        let _ = host.child.wait();
        let _ = std::fs::remove_dir_all(&host.folder);
    }
}

//! Runs a child process that may crash or hang, and outlives it.

use std::io::{BufRead, BufReader, Read, Result};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How a supervised process ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Ended {
    /// With exit status 0.
    Done,
    /// By a signal or with another status; what, and the last words on its standard error.
    Crashed(String),
    /// It said nothing for this long and was killed.
    Hung(Duration),
}

/// Runs `command` and hands over each line of its standard output; `line` returns how long the next one may take.
///
/// # Errors
/// If the process cannot be started.
pub fn supervise(
    command: &mut Command,
    mut limit: Duration,
    mut line: impl FnMut(&str) -> Duration,
) -> Result<Ended> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (send, lines) = channel();
    if let Some(out) = child.stdout.take() {
        thread::spawn(move || {
            // Ends with the pipe, or when nobody listens any more.
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
    }
    let errors = child.stderr.take().map(|mut pipe| {
        thread::spawn(move || {
            let mut text = Vec::new();
            // What cannot be read is not there to be reported.
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    loop {
        match lines.recv_timeout(limit) {
            Ok(text) => limit = line(&text),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // It may have ended just now; then there is nothing to kill.
                let _ = child.kill();
                child.wait()?;
                return Ok(Ended::Hung(limit));
            }
        }
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(Ended::Done);
    }
    let errors = errors.and_then(|e| e.join().ok()).unwrap_or_default();
    let last = errors.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
    Ok(Ended::Crashed(format!("{status}: {last}")))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Ended, Vec<String>) {
        let mut lines = Vec::new();
        let ended = supervise(Command::new("sh").args(["-c", script]), Duration::from_secs(20), |line| {
            lines.push(line.to_string());
            if line == "hanging" { Duration::from_millis(100) } else { Duration::from_secs(20) }
        });
        (ended.expect("sh starts"), lines)
    }

    #[test]
    fn lines_arrive_and_the_end_is_told() {
        assert_eq!(shell("echo one; echo two"), (Ended::Done, vec!["one".into(), "two".into()]));
        let (ended, lines) = shell("echo one; echo 'last words' >&2; exit 3");
        assert!(matches!(&ended, Ended::Crashed(why) if why.contains("3: last words")), "{ended:?}");
        assert_eq!(lines, ["one"]);
        let (ended, _) = shell("kill -SEGV $$");
        assert!(matches!(ended, Ended::Crashed(_)), "{ended:?}");
    }

    #[test]
    fn a_silent_process_is_killed() {
        let (ended, _) = shell("echo hanging; exec sleep 1000");
        assert_eq!(ended, Ended::Hung(Duration::from_millis(100)));
    }
}

//! Messages of Metal's compiler. wgpu keeps them out of its errors and sends them to the log, so a logger listens.

use std::cell::RefCell;

use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

use crate::kernel::Composed;

thread_local! {
    /// What wgpu has logged on this thread since it began to compile.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The application's logger, with the compiler's messages taken out.
struct CompilerLog<L>(L);

/// Installs `logger` as the process's logger, such that what Metal's compiler says of an MSL kernel becomes part of the
/// [`Error::Compile`](crate::Error::Compile). Without it such an error says only that the text does not compile. Set
/// [`log::set_max_level`] to `Error` at least.
///
/// # Errors
/// If the process has a logger already.
///
/// ```no_run
/// # struct Quiet;
/// # impl log::Log for Quiet {
/// #     fn enabled(&self, _: &log::Metadata<'_>) -> bool { false }
/// #     fn log(&self, _: &log::Record<'_>) {}
/// #     fn flush(&self) {}
/// # }
/// # let my_logger = Quiet;
/// wgmarlin::device::install_logger(my_logger)?;
/// # Ok::<(), log::SetLoggerError>(())
/// ```
pub fn install_logger(logger: impl Log + 'static) -> Result<(), SetLoggerError> {
    log::set_boxed_logger(Box::new(CompilerLog(logger)))?;
    log::set_max_level(log::max_level().max(LevelFilter::Error));
    Ok(())
}

impl<L: Log> Log for CompilerLog<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_compilers(metadata) || self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let kept = is_compilers(record.metadata())
            && HEARD.with_borrow_mut(|heard| {
                heard.as_mut().map(|text| *text += &format!("{}\n", record.args())).is_some()
            });
        if !kept && self.0.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn is_compilers(metadata: &Metadata<'_>) -> bool {
    metadata.level() == Level::Error && metadata.target().starts_with("wgpu")
}

/// Runs `compile` and returns what wgpu logged meanwhile; nothing without [`install_logger`].
pub(crate) fn listen<T>(compile: impl FnOnce() -> T) -> (T, String) {
    HEARD.set(Some(String::new()));
    let result = compile();
    (result, HEARD.take().unwrap_or_default())
}

/// The messages, each followed by the place in the sources that its `program_source:LINE:` stands for.
pub(crate) fn with_origins(heard: &str, composed: &Composed) -> String {
    // Metal's errors come in one string with escaped line ends.
    let mut text = String::new();
    for line in heard.replace("\\n", "\n").lines() {
        text += line;
        let number =
            line.split("program_source:").nth(1).and_then(|rest| rest.split(':').next()?.parse().ok());
        if let Some(number) = number {
            text += &format!(" (at {})", composed.origin(number));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(std::sync::atomic::AtomicUsize);
    impl Log for &Count {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn log(&self, _: &Record<'_>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        fn flush(&self) {}
    }

    #[test]
    fn the_compilers_words_are_kept_and_others_passed_on() {
        let others = Count(0.into());
        let logger = CompilerLog(&others);
        let say = |level, target, what: &str| {
            logger.log(&Record::builder().level(level).target(target).args(format_args!("{what}")).build());
        };
        let ((), heard) = listen(|| {
            say(Level::Error, "wgpu_core::device::resource", "Shader error: program_source:2:7: no");
            say(Level::Warn, "wgpu_core", "slow");
            say(Level::Error, "application", "else");
        });
        assert_eq!(heard, "Shader error: program_source:2:7: no\n");
        say(Level::Error, "wgpu_core", "later");
        assert_eq!(others.0.into_inner(), 3);
    }

    #[test]
    fn places_are_named() {
        let composed = Composed { text: "a\nb\n".into(), lines: vec![("x.metal", 7), ("y.metal", 9)] };
        let said = with_origins("MSL: \"program_source:2:7: error: no\\nprogram_source:9:1: x\"", &composed);
        let want = "MSL: \"program_source:2:7: error: no (at y.metal:9)\nprogram_source:9:1: x\" (at composed line 9)\n";
        assert_eq!(said, want);
    }
}

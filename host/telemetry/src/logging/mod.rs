//! The log of the process: its destination, its levels, and its limits.
//!
//! Lines go to standard error, as text or JSON, at the levels of `RUST_LOG`. Repeated lines are written only now and
//! then, with the number of dropped ones ([`Repeats`]), so neither clients nor the broker can fill the log. Logging
//! never waits for the reader of the log ([`Output`]).
//!
//! This module is a leaf.

mod output;
mod repeats;
mod stderr;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

pub use output::Output;
pub use repeats::Repeats;
use tracing::{Subscriber, error, warn};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// How often dropped lines are reported.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// How long the process waits at its end for a reader that does not read.
const LAST_LINES_TIME_MAX: Duration = Duration::from_millis(300);

/// The log of this process. Dropping it writes the remaining lines, in bounded time.
#[derive(Debug)]
pub struct Log {
    repeats: Arc<Repeats>,
    output: Output,
    style: Style,
}

/// The style of the lines.
#[derive(Clone, Copy, Debug)]
struct Style {
    json: bool,
    coloured: bool,
}

impl Log {
    /// Starts the log for the whole process: JSON with `LOG_FORMAT=json`, otherwise text, coloured on a terminal;
    /// levels from `RUST_LOG`, otherwise `info`. Must be called only once.
    ///
    /// # Errors
    /// Returns an error if the system provides no thread, or no copy of standard error.
    pub fn start() -> io::Result<Self> {
        let style = Style {
            json: std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json"),
            coloured: io::stderr().is_terminal(),
        };
        let output = Output::start(stderr::open()?, move |lost| summary(style, lost))?;
        let repeats = Arc::new(Repeats::default());
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let to = output.clone();
        tracing_subscriber::registry()
            .with(filter)
            .with(repeats.clone().layer())
            .with(style.lines(move || to.clone()))
            .init();
        panic::set_hook(Box::new(log_panic));
        Ok(Self {
            repeats,
            output,
            style,
        })
    }

    /// The destination of the lines.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Writes why the process ends: in JSON like any other line, otherwise as the bare text that a person at a terminal expects.
    pub fn say_last(&self, why: &str) {
        if self.style.json {
            error!("{why}");
        } else {
            self.output.push(format!("{why}\n").as_bytes());
        }
    }

    /// Runs `work` to completion, and reports dropped lines meanwhile.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(TELL_INTERVAL) => self.repeats.tell(),
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.repeats.tell();
        self.output.flush(Instant::now() + LAST_LINES_TIME_MAX);
    }
}

impl Style {
    /// A layer of a subscriber that writes lines of this style.
    fn lines<S>(
        self,
        to: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
    ) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let lines = fmt::layer().with_writer(to);
        if self.json {
            // The list of spans includes the innermost one, too.
            let lines = lines.json().flatten_event(true).with_current_span(false);
            lines.boxed()
        } else {
            lines.with_ansi(self.coloured).boxed()
        }
    }
}

/// The line that reports how many lines were lost. It bypasses the buffer, which may be full again.
fn summary(style: Style, lost: u64) -> Vec<u8> {
    let line = Arc::<Mutex<Vec<u8>>>::default();
    let to = line.clone();
    let subscriber = tracing_subscriber::registry().with(style.lines(move || Kept(to.clone())));
    tracing::subscriber::with_default(subscriber, || {
        warn!(
            target: repeats::OWN_TARGET,
            lost, "{lost} lines of the log are lost: its reader did not read, or the disk is full"
        );
    });
    std::mem::take(&mut *line.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Text that is kept in memory.
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a panic like any other line. The hook of the standard library would wait for the reader of standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(
        target: "signalbox::panic",
        place,
        thread = thread.name(),
        backtrace,
        "a bug in the server (a panic): {message}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: Style = Style {
        json: true,
        coloured: false,
    };

    #[test]
    fn the_summary_of_lost_lines_looks_like_any_line() {
        let line: serde_json::Value =
            serde_json::from_slice(&summary(JSON, 7)).expect("it is JSON");
        assert_eq!((&line["lost"], &line["level"]), (&7.into(), &"WARN".into()));
        let text = Style {
            json: false,
            coloured: false,
        };
        let text = String::from_utf8(summary(text, 7)).expect("it is text");
        assert!(text.contains("WARN") && text.contains("7 lines"), "{text}");
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let mine = std::thread::current().id();
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if std::thread::current().id() == mine {
                log_panic(panic);
            } else {
                before(panic);
            }
        }));
        let line = Arc::<Mutex<Vec<u8>>>::default();
        let to = line.clone();
        let subscriber = tracing_subscriber::registry().with(JSON.lines(move || Kept(to.clone())));
        tracing::subscriber::with_default(subscriber, || {
            assert!(panic::catch_unwind(|| panic!("no luck {}", 13)).is_err());
        });
        let line: serde_json::Value =
            serde_json::from_slice(&line.lock().unwrap()).expect("one line of JSON");
        assert_eq!(line["target"], "signalbox::panic");
        assert!(
            line["message"].as_str().unwrap().contains("no luck 13"),
            "{line}"
        );
        assert!(
            line["place"].as_str().unwrap().contains("logging/mod.rs"),
            "{line}"
        );
    }
}

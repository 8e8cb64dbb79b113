//! A guest's standard output and standard error, as lines in the log.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use super::log::{Level, PluginLog, clean, one_line};

/// Bytes of an unfinished line that are kept; a longer one is written in pieces.
const LINE_BYTES_MAX: usize = 1024;

/// The most bytes of one write: few, because no tick interrupts the host while it splits lines.
const WRITE_BYTES_MAX: usize = 4 << 10;

/// Lines that are kept for the report of a failure: some languages print the error first and then the stack, others
/// print the error last.
const STDERR_TAIL_LINES_MAX: usize = 8;

/// How many of them are the first lines of the output; the others are the last lines.
const FIRST_WORDS: usize = 2;

/// The longest text of these lines in the report, in bytes.
const STDERR_TAIL_BYTES_MAX: usize = 2 << 10;

/// Collects output, and logs it line by line. Clones share the unfinished line.
#[derive(Clone)]
pub(super) struct OutputLines {
    log: Arc<PluginLog>,
    level: Level,
    unfinished: Arc<Mutex<Vec<u8>>>,
    stderr_tail: Option<Arc<StderrTail>>,
}

impl OutputLines {
    pub(super) fn new(log: Arc<PluginLog>, level: Level) -> Self {
        Self {
            log,
            level,
            unfinished: Arc::default(),
            stderr_tail: None,
        }
    }

    /// Also keeps the last lines in `stderr_tail`.
    pub(super) fn remembered(self, stderr_tail: Arc<StderrTail>) -> Self {
        Self {
            stderr_tail: Some(stderr_tail),
            ..self
        }
    }

    fn take(&self, bytes: &[u8]) {
        let mut unfinished = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                unfinished.extend_from_slice(part);
                if part.ends_with(b"\n") || unfinished.len() >= LINE_BYTES_MAX {
                    let line = String::from_utf8_lossy(&unfinished);
                    self.log.write(self.level, None, &line);
                    if let Some(stderr_tail) = &self.stderr_tail {
                        stderr_tail.hear(&line);
                    }
                    unfinished.clear();
                }
            }
        }
    }
}

/// The first and last lines that a guest wrote in a call. They are the only source for the message of a panic.
#[derive(Debug, Default)]
pub(super) struct StderrTail {
    lines: Mutex<VecDeque<String>>,
    /// Whether there are any: few calls write any, and checking should not lock.
    heard: AtomicBool,
}

impl StderrTail {
    /// Records a line.
    pub(super) fn hear(&self, line: &str) {
        let line = clean(line);
        // The last line of every Rust panic is not useful here.
        if line.trim().is_empty() || line.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        let mut lines = self.lines();
        self.heard.store(true, Ordering::Relaxed);
        if lines.len() >= STDERR_TAIL_LINES_MAX {
            lines.remove(FIRST_WORDS);
        }
        lines.push_back(line);
    }

    /// Takes the lines as one text; `None` if there are none.
    pub(super) fn take(&self) -> Option<String> {
        if !self.heard.swap(false, Ordering::Relaxed) {
            return None;
        }
        let lines = Vec::from(std::mem::take(&mut *self.lines()));
        Some(one_line(&lines.join(" / "), STDERR_TAIL_BYTES_MAX))
    }

    /// Forgets all lines, before the next call.
    pub(super) fn clear(&self) {
        if self.heard.swap(false, Ordering::Relaxed) {
            self.lines().clear();
        }
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IsTerminal for OutputLines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for OutputLines {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for OutputLines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait]
impl Pollable for OutputLines {
    async fn ready(&mut self) {}
}

impl AsyncWrite for OutputLines {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use signalbox_telemetry::metrics::PluginMetrics;

    use super::*;

    #[test]
    fn the_first_and_the_last_lines_of_standard_error_are_remembered_as_one() {
        let log = Arc::new(PluginLog::new(
            "p",
            "v",
            100,
            Arc::<PluginMetrics>::default(),
        ));
        let words = Arc::<StderrTail>::default();
        let lines = OutputLines::new(log, Level::Warn).remembered(words.clone());
        lines.take(b"1\n2\n3\n4\n5\n6\n7\n\nthread panicked at lib.rs:1:\nit ");
        lines.take(b"broke\nnote: run with `RUST_BACKTRACE=1` to see more\n");
        assert_eq!(
            words.take().as_deref(),
            Some("1 / 2 / 4 / 5 / 6 / 7 / thread panicked at lib.rs:1: / it broke")
        );
        assert_eq!(words.take(), None);
    }

    #[test]
    fn the_log_of_one_call_is_not_attributed_to_the_next() {
        let words = StderrTail::default();
        words.hear("of the call before");
        words.clear();
        assert_eq!(words.take(), None);
        words.hear(&"x".repeat(600));
        for _ in 0..7 {
            words.hear(&"y".repeat(600));
        }
        let tail = words.take().expect("something was written");
        assert!(tail.starts_with("xxx") && tail.len() <= STDERR_TAIL_BYTES_MAX + '…'.len_utf8());
    }
}

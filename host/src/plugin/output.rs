//! A guest's standard output and standard error, as lines in the log.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use super::log::{Level, PluginLog, clean};

/// Bytes of an unfinished line that are kept; a longer one is written in pieces.
const LINE_BYTES_MAX: usize = 1024;

/// What one write may bring: little, because no tick interrupts the host while it takes lines apart.
const WRITE_BYTES_MAX: usize = 4 << 10;

/// Lines that are kept for the report of a failure.
const LAST_WORDS_MAX: usize = 3;

/// Collects what is written, and logs it line by line. Its clones share the unfinished line.
#[derive(Clone)]
pub(super) struct OutputLines {
    log: Arc<PluginLog>,
    level: Level,
    unfinished: Arc<Mutex<Vec<u8>>>,
    last_words: Option<Arc<LastWords>>,
}

impl OutputLines {
    pub(super) fn new(log: Arc<PluginLog>, level: Level) -> Self {
        Self {
            log,
            level,
            unfinished: Arc::default(),
            last_words: None,
        }
    }

    /// Also keeps the last lines in `last_words`.
    pub(super) fn remembered(self, last_words: Arc<LastWords>) -> Self {
        Self {
            last_words: Some(last_words),
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
                    if let Some(last_words) = &self.last_words {
                        last_words.hear(&line);
                    }
                    unfinished.clear();
                }
            }
        }
    }
}

/// The last lines that a guest complained with: a panic's message is among them, and nowhere else.
#[derive(Debug, Default)]
pub(super) struct LastWords(Mutex<VecDeque<String>>);

impl LastWords {
    /// Takes a line down.
    pub(super) fn hear(&self, line: &str) {
        let line = clean(line);
        // What Rust ends every panic with says nothing here.
        if line.trim().is_empty() || line.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LAST_WORDS_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines as one, and none is left; none where there was none.
    pub(super) fn take(&self) -> Option<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (!lines.is_empty()).then(|| Vec::from(lines).join(" "))
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
    use super::*;
    use crate::metrics::PluginMetrics;

    #[test]
    fn the_last_lines_of_standard_error_are_remembered_as_one() {
        let log = Arc::new(PluginLog::new(
            "p",
            "v",
            100,
            Arc::<PluginMetrics>::default(),
        ));
        let words = Arc::<LastWords>::default();
        let lines = OutputLines::new(log, Level::Warn).remembered(words.clone());
        lines.take(b"one\ntwo\n\nthread panicked at lib.rs:1:\nit ");
        lines.take(b"broke\nnote: run with `RUST_BACKTRACE=1` to see more\n");
        assert_eq!(
            words.take().as_deref(),
            Some("two thread panicked at lib.rs:1: it broke")
        );
        assert_eq!(words.take(), None);
    }
}

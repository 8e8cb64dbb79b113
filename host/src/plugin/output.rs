//! A guest's standard output and standard error, as lines in the log.

use std::{
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

use super::log::{Level, PluginLog};

/// Bytes of an unfinished line that are kept; a longer one is written in pieces.
const LINE_BYTES_MAX: usize = 1024;

/// What one write may bring.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Collects what is written, and logs it line by line. Its clones share the unfinished line.
#[derive(Clone)]
pub(super) struct OutputLines {
    log: Arc<PluginLog>,
    level: Level,
    unfinished: Arc<Mutex<Vec<u8>>>,
}

impl OutputLines {
    pub(super) fn new(log: Arc<PluginLog>, level: Level) -> Self {
        Self {
            log,
            level,
            unfinished: Arc::default(),
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
                    self.log
                        .write(self.level, &String::from_utf8_lossy(&unfinished));
                    unfinished.clear();
                }
            }
        }
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

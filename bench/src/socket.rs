//! The two halves of a connection: a reader that owns no buffer while it waits, and a writer that any task may use.
//!
//! A reader borrows its thread's buffer only while bytes are available, so an idle connection costs no buffer. A writer
//! writes at once, from the task that has the bytes: there is no queue, wake-up or second task between a message and
//! the system call. Only bytes that the kernel does not accept are kept, up to a bound, and written by a task that
//! lives until they are gone.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};

use anyhow::{bail, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::frame::{HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::lock;

/// Upper bound of one read, in bytes. It is more than the longest frame, so a frame always fits.
const READ_BYTES_MAX: usize = 2 * (PAYLOAD_BYTES_MAX + HEADER_BYTES_MAX);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES_MAX]);
}

/// Splits a connected stream. `rest` holds bytes that were already read, e.g. with the handshake. Disables Nagle's
/// algorithm, because a small frame must not wait for the acknowledgement of the previous one.
///
/// # Errors
/// Returns an error if `TCP_NODELAY` cannot be set, as on a socket that is already closed.
pub(crate) fn split(
    stream: TcpStream,
    rest: Vec<u8>,
    outbox_bytes_max: usize,
) -> io::Result<(FrameReader, Arc<SharedWriter>)> {
    stream.set_nodelay(true)?;
    let (read_half, write_half) = stream.into_split();
    let reader = FrameReader {
        half: read_half,
        fresh: !rest.is_empty(),
        carry: rest,
    };
    let writer = SharedWriter {
        half: write_half,
        outbox_bytes_max,
        outbox: Mutex::default(),
    };
    Ok((reader, Arc::new(writer)))
}

/// Reads the available bytes, and keeps only the beginning of an incomplete frame.
#[derive(Debug)]
pub(crate) struct FrameReader {
    half: OwnedReadHalf,
    carry: Vec<u8>,
    /// Whether the carried bytes came with the handshake and no handler has seen them yet.
    fresh: bool,
}

impl FrameReader {
    /// Waits for bytes, then calls `handle` once with all available bytes. `handle` returns how many bytes it consumed,
    /// and a value. It gets the unconsumed bytes again, together with the bytes that follow. Returns `None` if the peer
    /// has closed.
    ///
    /// # Errors
    /// Returns an error if the socket fails.
    pub(crate) async fn read_with<T>(
        &mut self,
        mut handle: impl FnMut(&[u8]) -> (usize, T),
    ) -> io::Result<Option<T>> {
        if std::mem::take(&mut self.fresh) {
            let (consumed, value) = handle(&self.carry);
            self.carry.drain(..consumed);
            return Ok(Some(value));
        }
        poll_fn(|context| {
            READ_BUFFER.with_borrow_mut(|buffer| {
                let carried = self.carry.len();
                let mut free = ReadBuf::new(&mut buffer[carried..]);
                ready!(Pin::new(&mut self.half).poll_read(context, &mut free))?;
                let read = free.filled().len();
                if read == 0 {
                    return Poll::Ready(Ok(None));
                }
                buffer[..carried].copy_from_slice(&self.carry);
                let bytes = &buffer[..carried + read];
                let (consumed, value) = handle(bytes);
                self.keep(&bytes[consumed..]);
                Poll::Ready(Ok(Some(value)))
            })
        })
        .await
    }

    /// Frees the memory if nothing is left, so that idle connections hold none.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.carry = Vec::new();
        } else {
            self.carry.clear();
            self.carry.extend_from_slice(rest);
        }
    }
}

/// Writes from any task or thread of the runtime. The bytes of one call stay together, and calls keep their order.
#[derive(Debug)]
pub(crate) struct SharedWriter {
    half: OwnedWriteHalf,
    outbox_bytes_max: usize,
    outbox: Mutex<Outbox>,
}

#[derive(Debug, Default)]
struct Outbox {
    /// The bytes that the kernel has not accepted yet. Not empty exactly while a flush task runs.
    pending: BytesMut,
    closed: bool,
}

impl SharedWriter {
    /// Writes as much as the kernel accepts now, and queues the rest. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the connection is closed, or if the queue would exceed its bound because the peer reads too
    /// slowly; the connection is then shut down.
    pub(crate) fn send(self: &Arc<Self>, bytes: &[u8]) -> anyhow::Result<()> {
        let mut outbox = lock(&self.outbox);
        ensure!(!outbox.closed, "the connection is closed");
        let idle = outbox.pending.is_empty();
        let taken = if idle {
            self.write_now(bytes, &mut outbox)?
        } else {
            0
        };
        let rest = &bytes[taken..];
        if rest.is_empty() {
            return Ok(());
        }
        if outbox.pending.len() + rest.len() > self.outbox_bytes_max {
            self.shut_down(&mut outbox);
            bail!(
                "the peer reads too slowly: more than {} bytes wait for it",
                self.outbox_bytes_max
            );
        }
        outbox.pending.extend_from_slice(rest);
        if idle {
            tokio::spawn(Arc::clone(self).flush());
        }
        Ok(())
    }

    /// Shuts the connection down in both directions; the reader then sees the end of the stream.
    pub(crate) fn close(&self) {
        self.shut_down(&mut lock(&self.outbox));
    }

    /// Bytes that are queued because the peer reads slowly.
    pub(crate) fn pending_bytes(&self) -> usize {
        lock(&self.outbox).pending.len()
    }

    async fn flush(self: Arc<Self>) {
        loop {
            let ready = self.half.writable().await;
            let mut outbox = lock(&self.outbox);
            if ready.is_err() {
                self.shut_down(&mut outbox);
            }
            if outbox.closed {
                return;
            }
            let mut pending = std::mem::take(&mut outbox.pending);
            let Ok(taken) = self.write_now(&pending, &mut outbox) else {
                return;
            };
            pending.advance(taken);
            if pending.is_empty() {
                return;
            }
            outbox.pending = pending;
        }
    }

    /// Makes system calls until everything is written or the kernel accepts no more. Returns the number of bytes
    /// written.
    fn write_now(&self, bytes: &[u8], outbox: &mut Outbox) -> anyhow::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.half.try_write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.shut_down(outbox);
                    bail!("the connection is closed");
                }
            }
        }
        Ok(taken)
    }

    fn shut_down(&self, outbox: &mut Outbox) {
        *outbox = Outbox {
            closed: true,
            ..Outbox::default()
        };
        // A failure means that the peer was faster: the socket is already closed.
        let _ = rustix::net::shutdown(self.half.as_ref(), rustix::net::Shutdown::Both);
    }
}

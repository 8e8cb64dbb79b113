//! A WebSocket on a TCP connection.
//!
//! Bytes are read into a per-thread buffer and decoded from there, so an idle connection has no buffer. Sending does
//! not use this type.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use signalbox_router::SocketSink;
use signalbox_websocket::Decoder;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::socket::{Incoming, Socket, SocketError};

/// The size of one read.
const READ_BYTES: usize = 16 << 10;
/// The most bytes that are discarded: more than a client can have in flight when it gets a close frame.
const SKIPPED_BYTES_MAX: u64 = 64 << 20;

thread_local! {
    /// The read buffer of the thread.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The server's side of a WebSocket on a TCP connection.
#[derive(Debug)]
pub struct TcpSocket {
    receiving: OwnedReadHalf,
    sending: Option<OwnedWriteHalf>,
    decoder: Decoder,
    /// Bytes that have been read but not decoded yet, if one read returned several frames.
    undecoded: Bytes,
    received: u64,
    /// The number of bytes received when the skipping of messages began.
    skipping_from: Option<u64>,
    /// Nothing more can be read: the connection is over, or the client violated the protocol.
    ended: bool,
}

impl TcpSocket {
    /// A WebSocket on the upgraded `stream`, from which the bytes `read` have already been read. Messages have at most
    /// `frame_bytes_max` bytes.
    pub fn new(stream: TcpStream, read: &[u8], frame_bytes_max: usize) -> Self {
        let (receiving, sending) = stream.into_split();
        Self {
            receiving,
            sending: Some(sending),
            decoder: Decoder::new(frame_bytes_max),
            undecoded: Bytes::copy_from_slice(read),
            received: read.len() as u64,
            skipping_from: None,
            ended: false,
        }
    }

    /// The next complete message in the bytes that were read before.
    fn decode_rest(&mut self) -> Result<Option<Incoming>, SocketError> {
        let mut rest = &self.undecoded[..];
        let whole = self.decoder.decode(&mut rest);
        let decoded = self.undecoded.len() - rest.len();
        self.undecoded.advance(decoded);
        if self.undecoded.is_empty() {
            // Frees the memory.
            self.undecoded = Bytes::new();
        }
        Ok(whole?)
    }

    fn has_skipped_enough(&self) -> bool {
        let from = self.skipping_from;
        from.is_some_and(|from| self.received - from > SKIPPED_BYTES_MAX)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, SocketError>> {
        if !self.undecoded.is_empty()
            && let Some(whole) = self.decode_rest()?
        {
            return Poll::Ready(Ok(whole));
        }
        READ.with_borrow_mut(|buffer| {
            loop {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.receiving).poll_read(cx, &mut read))?;
                let mut read = read.filled();
                if read.is_empty() {
                    let reason = "the connection ended without a close".to_owned();
                    return Poll::Ready(Err(SocketError::Broken(reason)));
                }
                self.received += read.len() as u64;
                if self.has_skipped_enough() {
                    let reason = "the client does not stop sending".to_owned();
                    return Poll::Ready(Err(SocketError::Broken(reason)));
                }
                if let Some(whole) = self.decoder.decode(&mut read)? {
                    self.undecoded = Bytes::copy_from_slice(read);
                    return Poll::Ready(Ok(whole));
                }
            }
        })
    }
}

impl Socket for TcpSocket {
    fn take_sink(&mut self) -> Option<Box<dyn SocketSink>> {
        Some(Box::new(self.sending.take()?))
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.receiving.as_ref().poll_write_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_next(cx));
        self.ended = matches!(next, Err(_) | Ok(Incoming::Close { .. }));
        Poll::Ready(Some(next))
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn is_midway(&self) -> bool {
        self.decoder.is_midway()
    }

    fn kept_bytes(&self) -> usize {
        self.decoder.kept_bytes()
    }

    fn skip_messages(&mut self) {
        self.skipping_from = Some(self.received);
        self.decoder.skip_messages();
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        READ.with_borrow_mut(|buffer| {
            while !self.has_skipped_enough() {
                let mut read = ReadBuf::new(buffer);
                let outcome = ready!(Pin::new(&mut self.receiving).poll_read(cx, &mut read));
                if outcome.is_err() || read.filled().is_empty() {
                    break;
                }
                self.received += read.filled().len() as u64;
            }
            Poll::Ready(())
        })
    }

    fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.decoder.set_message_bytes_max(bytes);
    }
}

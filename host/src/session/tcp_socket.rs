//! A WebSocket on a TCP connection, by tungstenite.
//!
//! tungstenite's [`WebSocketContext`] reads and writes any stream that says `WouldBlock`; [`Polled`] is such a stream for
//! the time of one poll. So a connection costs no buffer, lock or waker beside those of the stream itself.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tungstenite::{
    Error, Message,
    error::ProtocolError,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext},
};

use super::socket::{Incoming, Outgoing, Socket, SocketError};

/// What a socket reads at a time. Larger buffers stay with every idle connection.
const READ_BUFFER_BYTES: usize = 1536;
/// What is gathered before it is written out; a flush writes it in any case.
const WRITE_BUFFER_BYTES: usize = 4096;
/// What is thrown away at a time.
const DISCARD_BYTES: usize = 4096;

/// The server's side of a WebSocket on a TCP connection.
#[derive(Debug)]
pub struct TcpSocket {
    stream: TcpStream,
    context: WebSocketContext,
    /// More is gathered than is kept here: it must be flushed before more is taken.
    full: bool,
    /// Nothing more can be read: the connection is over, or what follows cannot be understood.
    ended: bool,
    /// The sending side is ended.
    shut: bool,
}

impl TcpSocket {
    /// After the upgrade of `stream`, on which `read` was read already; messages have at most `frame_bytes_max`.
    pub fn new(stream: TcpStream, read: &[u8], frame_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_frame_size(Some(frame_bytes_max))
            .max_message_size(Some(frame_bytes_max));
        let context =
            WebSocketContext::from_partially_read(read.to_vec(), Role::Server, Some(config));
        Self {
            stream,
            context,
            full: false,
            ended: false,
            shut: false,
        }
    }
}

impl Socket for TcpSocket {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut stream = Polled::new(&mut self.stream, cx);
        let read = ready!(pending_where_blocked(self.context.read(&mut stream)));
        Poll::Ready(match read {
            Ok(message) => Some(Ok(incoming(message))),
            Err(error) => {
                self.ended = true;
                match error {
                    Error::ConnectionClosed | Error::AlreadyClosed => None,
                    error => Some(Err(socket_error(error))),
                }
            }
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        if self.full {
            self.poll_flush(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn start_send(&mut self, frame: Outgoing) -> Result<(), SocketError> {
        let message = match frame {
            Outgoing::Text(frame) => Message::Text(frame.into_text()),
            Outgoing::Ping => Message::Ping(Bytes::new()),
            Outgoing::Close { code, reason } => Message::Close(Some(CloseFrame {
                code: code.into(),
                reason: reason.into(),
            })),
        };
        match pending_where_blocked(self.context.write(&mut Blocked, message)) {
            Poll::Ready(written) => written.map_err(socket_error),
            // It is taken; whoever flushes has a waker.
            Poll::Pending => {
                self.full = true;
                Ok(())
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        let mut stream = Polled::new(&mut self.stream, cx);
        let flushed = ready!(pending_where_blocked(self.context.flush(&mut stream)));
        self.full = false;
        Poll::Ready(match flushed {
            // The answer to a close was what there was to flush.
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
            Err(error) => Err(socket_error(error)),
        })
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.shut {
            // An error is met again by reading.
            let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
            self.shut = true;
        }
        loop {
            let mut buffer = [0; DISCARD_BYTES];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.context.set_config(|config| {
            config.max_frame_size = Some(bytes);
            config.max_message_size = Some(bytes);
        });
    }
}

fn incoming(message: Message) -> Incoming {
    match message {
        Message::Text(text) => Incoming::Text(text),
        Message::Binary(bytes) => Incoming::Binary(bytes),
        // Bare frames are for writing alone.
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Incoming::Control,
        Message::Close(Some(close)) => Incoming::Close {
            code: close.code.into(),
            reason: close.reason.to_string(),
        },
        Message::Close(None) => Incoming::Close {
            code: 1005,
            reason: String::new(),
        },
    }
}

fn socket_error(error: Error) -> SocketError {
    match error {
        Error::Capacity(_) => SocketError::TooBig,
        Error::Utf8(_) => SocketError::NotUtf8,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            SocketError::Broken("the connection ended without a close".to_owned())
        }
        Error::Protocol(violation) => SocketError::Violation(violation.to_string()),
        other => SocketError::Broken(other.to_string()),
    }
}

fn pending_where_blocked<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// A stream for the time of one poll: where it would block, the task is woken.
struct Polled<'s, 'c, 'w> {
    stream: &'s mut TcpStream,
    cx: &'c mut Context<'w>,
}

impl<'s, 'c, 'w> Polled<'s, 'c, 'w> {
    fn new(stream: &'s mut TcpStream, cx: &'c mut Context<'w>) -> Self {
        Self { stream, cx }
    }
}

impl Read for Polled<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.stream).poll_read(self.cx, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Polled<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.stream).poll_write(self.cx, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream that takes nothing: what is gathered waits for a flush.
struct Blocked;

impl Read for Blocked {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Blocked {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

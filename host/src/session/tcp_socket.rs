//! A WebSocket on a TCP connection, by tungstenite.
//!
//! tungstenite's [`WebSocketContext`] reads any stream that says `WouldBlock`; [`Polled`] is such a stream for the time
//! of one poll. So a connection costs no buffer, lock or waker beside those of the stream itself. What is sent does not
//! come this way, apart from answers to control frames, which the context makes.

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tungstenite::{
    Error, Message,
    error::ProtocolError,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use super::socket::{Incoming, Socket, SocketError};
use crate::router::Sink;

/// What a socket reads at a time. Larger buffers stay with every idle connection.
const READ_BUFFER_BYTES: usize = 1408;
/// What is thrown away at a time.
const DISCARD_BYTES: usize = 4096;

/// The server's side of a WebSocket on a TCP connection.
#[derive(Debug)]
pub struct TcpSocket {
    receiving: OwnedReadHalf,
    sending: Option<OwnedWriteHalf>,
    context: WebSocketContext,
    /// Nothing more can be read: the connection is over, or what follows cannot be understood.
    ended: bool,
}

impl TcpSocket {
    /// After the upgrade of `stream`, on which `read` was read already; messages have at most `frame_bytes_max`.
    pub fn new(stream: TcpStream, read: &[u8], frame_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_frame_size(Some(frame_bytes_max))
            .max_message_size(Some(frame_bytes_max));
        let context =
            WebSocketContext::from_partially_read(read.to_vec(), Role::Server, Some(config));
        let (receiving, sending) = stream.into_split();
        Self {
            receiving,
            sending: Some(sending),
            context,
            ended: false,
        }
    }
}

impl Socket for TcpSocket {
    fn take_sink(&mut self) -> Option<Box<dyn Sink>> {
        Some(Box::new(self.sending.take()?))
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.receiving.as_ref().poll_write_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut stream = Polled::new(&mut self.receiving, cx);
        let read = match self.context.read(&mut stream) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Poll::Pending;
            }
            read => read,
        };
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

    fn take_reply(&mut self) -> Option<Bytes> {
        let mut reply = Reply(Vec::new());
        // Only the end of the connection can fail here, and reading meets that again.
        let _ = self.context.flush(&mut reply);
        Some(reply.0.into()).filter(|reply: &Bytes| !reply.is_empty())
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut buffer = [0; DISCARD_BYTES];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = ready!(Pin::new(&mut self.receiving).poll_read(cx, &mut buffer));
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

impl Sink for OwnedWriteHalf {
    fn try_write(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        if second.is_empty() {
            return OwnedWriteHalf::try_write(self, first);
        }
        self.try_write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
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

/// A stream for the time of one poll: where it would block, the task is woken.
struct Polled<'s, 'c, 'w> {
    stream: &'s mut OwnedReadHalf,
    cx: &'c mut Context<'w>,
}

impl<'s, 'c, 'w> Polled<'s, 'c, 'w> {
    fn new(stream: &'s mut OwnedReadHalf, cx: &'c mut Context<'w>) -> Self {
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

/// Replies wait for [`Socket::take_reply`].
impl Write for Polled<'_, '_, '_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// A stream that takes everything.
struct Reply(Vec<u8>);

impl Read for Reply {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Reply {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

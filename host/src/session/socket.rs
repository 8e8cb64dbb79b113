//! What a session wants of a WebSocket. [`TcpSocket`](super::TcpSocket) gives it.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use tungstenite::{
    Utf8Bytes,
    protocol::{CloseFrame, frame::Frame},
};

use crate::router::Sink;

/// What a client sent.
#[derive(Debug)]
pub enum Incoming {
    /// A text frame.
    Text(Utf8Bytes),
    /// A binary frame.
    Binary(Bytes),
    /// A ping or a pong.
    Control,
    /// A close frame. 1005 where it brought no code.
    Close {
        /// The client's code.
        code: u16,
        /// The client's reason.
        reason: String,
    },
}

/// Why nothing more can be read. A close frame can still be sent, except where the connection broke.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The client sent a message over the limit.
    #[error("the message is larger than the limit")]
    TooBig,
    /// The client sent a text that is not UTF-8.
    #[error("a text frame is not UTF-8")]
    NotUtf8,
    /// The client broke the WebSocket protocol.
    #[error("{0}")]
    Violation(String),
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// A WebSocket, whose sending side is given away.
pub trait Socket: Send {
    /// The sending side; none where it was taken already. Dropping it ends that side.
    fn take_sink(&mut self) -> Option<Box<dyn Sink>>;

    /// Ready once the sending side may have room.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The next frame; none once the connection is over, and after an error.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>>;

    /// What the protocol owes the client for the control or close frame that was read last, encoded.
    fn take_reply(&mut self) -> Option<Bytes>;

    /// Throws away what the client still sends, after the sending side is ended. Ready once the client ends its side.
    ///
    /// A connection that is dropped with something unread in it is reset, and a reset makes the client's system throw
    /// away what the client has not read yet: the close frame that says why.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Bounds what a client may send from now on.
    fn set_frame_bytes_max(&mut self, bytes: usize);
}

/// A ping, encoded.
pub(super) fn ping() -> Bytes {
    encoded(Frame::ping(Bytes::new()))
}

/// A close frame, encoded; `reason` has at most 123 bytes.
pub(super) fn close(code: u16, reason: &str) -> Bytes {
    encoded(Frame::close(Some(CloseFrame {
        code: code.into(),
        reason: reason.into(),
    })))
}

fn encoded(frame: Frame) -> Bytes {
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing into a vector cannot fail.
    let _ = frame.format(&mut bytes);
    bytes.into()
}

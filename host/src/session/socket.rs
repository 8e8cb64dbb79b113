//! What a session wants of a WebSocket. [`TcpSocket`](super::TcpSocket) gives it.

use std::task::{Context, Poll};

use bytes::Bytes;
use tungstenite::Utf8Bytes;

use crate::protocol::Frame;

/// What a client sent.
#[derive(Debug)]
pub enum Incoming {
    /// A text frame.
    Text(Utf8Bytes),
    /// A binary frame.
    Binary(Bytes),
    /// A ping or a pong; answered already where it wants an answer.
    Control,
    /// A close frame. 1005 where it brought no code.
    Close {
        /// The client's code.
        code: u16,
        /// The client's reason.
        reason: String,
    },
}

/// What a client is sent.
#[derive(Debug)]
pub enum Outgoing {
    /// A text frame.
    Text(Frame),
    /// A ping.
    Ping,
    /// A close frame.
    Close {
        /// The code.
        code: u16,
        /// At most 123 bytes.
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

/// A WebSocket.
pub trait Socket: Send {
    /// The next frame; none once the connection is over, and after an error.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>>;

    /// Ready once another frame may be sent.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>>;

    /// Takes a frame; it is sent by the next flush, or earlier.
    ///
    /// # Errors
    /// [`SocketError`] where the connection is over.
    fn start_send(&mut self, frame: Outgoing) -> Result<(), SocketError>;

    /// Ready once everything is with the operating system, also the answers to pings and to a close.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>>;

    /// Ends the sending side, and throws away what the client still sends. Ready once it ends its side.
    ///
    /// A connection that is dropped with something unread in it is reset, and a reset makes the client's system throw
    /// away what the client has not read yet: the close frame that says why.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Bounds what a client may send from now on.
    fn set_frame_bytes_max(&mut self, bytes: usize);
}

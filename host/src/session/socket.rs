//! All that a session wants of a WebSocket.

use std::{
    io,
    task::{Context, Poll},
};

pub use crate::websocket::Incoming;
use crate::{router::Sink, websocket::DecodeError};

/// Why nothing more can be read. A close frame can still be sent, unless the connection broke.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The bytes from the client cannot be understood, or break a limit.
    #[error("{0}")]
    Unreadable(#[from] DecodeError),
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
    /// The sending side; none if it was taken already. Dropping it ends that side.
    fn take_sink(&mut self) -> Option<Box<dyn Sink>>;

    /// Ready once the sending side may have room.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The next thing that is whole; none once the connection is over, and after an error. Pings are not answered.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>>;

    /// Bytes that were ever received, whole frames or not.
    fn received(&self) -> u64;

    /// Whether a frame or a message has begun and not ended.
    fn is_midway(&self) -> bool;

    /// Memory that is kept for a message that has not ended, in bytes.
    fn kept_bytes(&self) -> usize;

    /// From now on messages are thrown away as they come: [`poll_read`](Self::poll_read) returns a close frame alone.
    fn skip_messages(&mut self);

    /// Throws away what the client still sends, after the sending side is ended. Ready once the client ends its side, or
    /// has sent far more than a client can have had under way.
    ///
    /// A connection that is dropped with something unread in it is reset, and a reset makes the client's system throw
    /// away what the client has not read yet: the close frame that says why.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Bounds what a client may send from now on.
    fn set_frame_bytes_max(&mut self, bytes: usize);
}

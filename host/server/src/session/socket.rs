//! The interface between a session and its WebSocket, or its stream of server-sent events.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use signalbox_router::SocketSink;
pub use signalbox_websocket::Incoming;
use signalbox_websocket::{self as websocket, DecodeError};

/// The reason why nothing more can be read. A close frame can still be sent, unless the connection broke.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The client's bytes violate the protocol, or exceed a limit.
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

/// A WebSocket, or another connection with a client, whose sending half can be taken out.
pub trait Socket: Send {
    /// Whether the client answers pings and close frames. If not, its silence means nothing, and it counts as alive as long as it
    /// takes the data that is sent.
    const CLIENT_ANSWERS: bool = true;

    /// The bytes of a ping.
    fn ping() -> Bytes {
        websocket::ping()
    }

    /// The bytes of the frame that closes the connection.
    fn close(code: u16, reason: &str) -> Bytes {
        websocket::close(code, reason)
    }

    /// The key with which the client sends frames by other requests; `None` if it sends them here.
    fn send_key(&self) -> Option<String> {
        None
    }

    /// The sending half; `None` if it was taken already. Dropping it shuts down the sending side.
    fn take_sink(&mut self) -> Option<Box<dyn SocketSink>>;

    /// Ready once the socket may be writable.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The next complete frame or message; `None` once the connection is over, and after an error. Does not answer pings.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>>;

    /// The number of bytes received since the start, including incomplete frames.
    fn received(&self) -> u64;

    /// Whether a frame or a message has begun and not ended.
    fn is_midway(&self) -> bool;

    /// Memory that an unfinished message takes, in bytes.
    fn kept_bytes(&self) -> usize;

    /// Discards messages from now on: [`poll_read`](Self::poll_read) returns only a close frame.
    fn skip_messages(&mut self);

    /// Discards the client's data after the sending side is shut down. Ready once the client shuts down its side, or has sent
    /// far more than a client can have had in flight.
    ///
    /// A connection that is dropped with unread data is reset, and a reset makes the client's system discard everything that
    /// the client has not read yet, including the close frame with the reason.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Sets the largest frame that the client may send from now on.
    fn set_frame_bytes_max(&mut self, bytes: usize);
}

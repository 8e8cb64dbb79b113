//! A connection with either transport.

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::core::{Dial, Ending};
use crate::error::Error;
#[cfg(feature = "sse")]
use crate::events::Transport;
use crate::socket::Socket;
#[cfg(feature = "sse")]
use crate::stream::Stream;

/// What arrived.
#[derive(Debug)]
pub(crate) enum Arrival {
    Text(Utf8Bytes),
    /// A frame that is not one of the protocol.
    Binary,
    /// Something else that shows that the server is there.
    Sign,
    /// The frame of the client with this ID was not accepted. It did not come from the server.
    #[cfg_attr(
        not(feature = "sse"),
        expect(dead_code, reason = "a WebSocket accepts every frame")
    )]
    NotAccepted {
        id: String,
        error: Error,
    },
    Ended(Ending),
}

/// An open connection, and the frames that wait to be written to it.
pub(crate) enum Channel {
    Socket(Box<Socket>),
    #[cfg(feature = "sse")]
    Stream(Box<Stream>),
}

impl Channel {
    pub(crate) async fn open(dial: Dial) -> Result<Self, Ending> {
        match dial.transport {
            #[cfg(feature = "sse")]
            Transport::Sse => Ok(Self::Stream(Box::new(Stream::open(dial).await?))),
            _ => Ok(Self::Socket(Box::new(Socket::open(dial).await?))),
        }
    }

    /// Puts a frame into the queue to the server.
    pub(crate) fn write(&mut self, text: String) {
        match self {
            Self::Socket(socket) => socket.write(text),
            #[cfg(feature = "sse")]
            Self::Stream(stream) => stream.write(text),
        }
    }

    /// The bytes that wait.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        match self {
            Self::Socket(socket) => socket.unwritten_bytes(),
            #[cfg(feature = "sse")]
            Self::Stream(stream) => stream.unwritten_bytes(),
        }
    }

    /// Writes the bytes that wait, and returns the next event. Reads nothing from the server if `reads` is false.
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self, reads: bool) -> Arrival {
        match self {
            Self::Socket(socket) => socket.next(reads).await,
            #[cfg(feature = "sse")]
            Self::Stream(stream) => stream.next(reads).await,
        }
    }

    /// Ends the connection at the request of the application.
    pub(crate) async fn close(self) {
        match self {
            Self::Socket(socket) => socket.close().await,
            #[cfg(feature = "sse")]
            Self::Stream(_) => {}
        }
    }

    /// Drops the connection. What can be written at once still leaves.
    pub(crate) fn abandon(self) {
        match self {
            Self::Socket(socket) => socket.abandon(),
            #[cfg(feature = "sse")]
            Self::Stream(_) => {}
        }
    }
}

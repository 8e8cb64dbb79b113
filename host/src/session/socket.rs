//! What a session wants of a WebSocket, and axum's as the one that gives it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::{Sink, Stream};

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

/// Why a socket is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The client sent a frame over the limit.
    #[error("the frame is larger than the limit")]
    TooBig,
    /// The connection broke, or the client broke the protocol.
    #[error("{0}")]
    Broken(String),
}

/// A WebSocket.
pub trait Socket: Send {
    /// The next frame; none once the connection is over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>>;

    /// Ready once another frame may be sent.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>>;

    /// Takes a frame; it is sent by the next flush, or earlier.
    ///
    /// # Errors
    /// [`SocketError`] where the connection is over.
    fn start_send(&mut self, frame: Outgoing) -> Result<(), SocketError>;

    /// Ready once everything is with the operating system.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>>;

    /// Ready once the closing handshake is done.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>>;
}

impl Socket for WebSocket {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, SocketError>>> {
        let Some(message) = ready!(Pin::new(self).poll_next(cx)) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(message.map_err(error).map(|message| match message {
            Message::Text(text) => Incoming::Text(text),
            Message::Binary(bytes) => Incoming::Binary(bytes),
            Message::Ping(_) | Message::Pong(_) => Incoming::Control,
            Message::Close(Some(close)) => Incoming::Close {
                code: close.code,
                reason: close.reason.to_string(),
            },
            Message::Close(None) => Incoming::Close {
                code: 1005,
                reason: String::new(),
            },
        })))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        Sink::poll_ready(Pin::new(self), cx).map_err(error)
    }

    fn start_send(&mut self, frame: Outgoing) -> Result<(), SocketError> {
        let message = match frame {
            Outgoing::Text(frame) => Message::Text(frame.into_text()),
            Outgoing::Ping => Message::Ping(Bytes::new()),
            Outgoing::Close { code, reason } => Message::Close(Some(CloseFrame {
                code,
                reason: reason.into(),
            })),
        };
        Sink::start_send(Pin::new(self), message).map_err(error)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        Sink::poll_flush(Pin::new(self), cx).map_err(error)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        Sink::poll_close(Pin::new(self), cx).map_err(error)
    }
}

fn error(error: axum::Error) -> SocketError {
    // axum boxes tungstenite's error, whose type is not in its interface.
    let text = error.to_string();
    if text.contains("Space limit exceeded") {
        SocketError::TooBig
    } else {
        SocketError::Broken(text)
    }
}

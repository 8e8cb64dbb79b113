//! The frames of both transports as they are on the wire.

use super::events::{close_event, event, take_event};
use super::frames::{close_frame, take_frame, text_frame};

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket,
    /// Server-sent events.
    Events,
}

/// A frame as it is on the wire, and its text if it is one of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WireFrame {
    pub(super) bytes: Vec<u8>,
    pub(super) text: Option<String>,
}

/// A frame that a case wants the client to get.
#[derive(Clone, Debug)]
pub(super) enum Extra {
    Text(String),
    Close {
        code: u16,
        reason: String,
    },
    /// Bytes as they are.
    Bytes(Vec<u8>),
}

impl Transport {
    /// The status of an answer after which frames follow.
    pub(super) fn accepted(self) -> &'static str {
        match self {
            Self::WebSocket => "101",
            Self::Events => "200",
        }
    }

    /// Takes one frame of the server from the front of `buffer` once it is complete.
    pub(super) fn take(self, buffer: &mut Vec<u8>) -> Option<WireFrame> {
        match self {
            Self::WebSocket => take_frame(buffer),
            Self::Events => take_event(buffer),
        }
    }

    /// The bytes of a frame of the server.
    pub(super) fn bytes(self, extra: Extra) -> Vec<u8> {
        match (self, extra) {
            (_, Extra::Bytes(bytes)) => bytes,
            (Self::WebSocket, Extra::Text(text)) => text_frame(&text),
            (Self::WebSocket, Extra::Close { code, reason }) => close_frame(code, &reason),
            (Self::Events, Extra::Text(text)) => event(&text),
            (Self::Events, Extra::Close { code, reason }) => close_event(code, &reason),
        }
    }
}

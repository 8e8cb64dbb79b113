//! The transport of each attempt (section 12 of SPEC.md).

use std::time::Duration;

use tokio::time::Instant;

use super::Ending;
use super::ending::Next;
use crate::events::Transport;
use crate::options::Options;

/// A client gives up WebSockets, which have worked, after so many attempts in a row.
const FAILURES_MAX: u32 = 3;

/// Codes of refusals of the server that tell of a proxy that took the upgrade out of the request.
const STRIPPED: [&str; 3] = ["not_an_upgrade", "websocket_version", "websocket_key"];

/// Chooses the transport of each attempt.
#[derive(Debug)]
pub(super) struct Choice {
    /// Whether there is more than one transport.
    fallback: bool,
    again_after: Duration,
    /// The transport of the connection or the attempt, and then of the next attempt.
    transport: Transport,
    /// Whether no attempt has followed the last connection yet.
    is_first: bool,
    /// Whether the next attempt follows one with a WebSocket, and belongs to it.
    is_second: bool,
    /// Whether a frame has arrived since the attempt began.
    is_answered: bool,
    /// Whether the last connection was a WebSocket.
    had_web_socket: bool,
    /// When the last attempt with a WebSocket began.
    web_socket_at: Option<Instant>,
    /// The attempts with a WebSocket in a row without an answer of the server.
    failures: u32,
    /// The transport of the last attempt, if it ended with a status that is final without the fallback.
    refused: Option<Transport>,
}

impl Choice {
    #[cfg_attr(
        not(feature = "sse"),
        expect(unused_variables, reason = "there is nothing to choose")
    )]
    pub(super) fn new(options: &Options) -> Self {
        #[cfg(feature = "sse")]
        let (fallback, again_after) = (options.fallback, options.web_socket_again_after);
        #[cfg(not(feature = "sse"))]
        let (fallback, again_after) = (false, Duration::ZERO);
        Self {
            fallback,
            again_after,
            transport: Transport::WebSocket,
            is_first: false,
            is_second: false,
            is_answered: false,
            had_web_socket: false,
            web_socket_at: None,
            failures: 0,
            refused: None,
        }
    }

    /// The transport of the connection or the attempt.
    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether the next attempt belongs to the one before, and waits only shortly.
    pub(super) fn is_second(&self) -> bool {
        self.is_second
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, now: Instant) -> Transport {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= self.again_after;
        if self.is_first && self.web_socket_at.is_none_or(is_due) {
            self.transport = Transport::WebSocket;
        }
        self.is_first = false;
        self.is_second = false;
        self.is_answered = false;
        if self.transport == Transport::WebSocket {
            self.web_socket_at = Some(now);
        }
        self.transport
    }

    /// A frame has arrived.
    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }

    /// The attempt has become a connection.
    pub(super) fn welcomed(&mut self) {
        self.is_first = true;
        self.had_web_socket = self.transport == Transport::WebSocket;
        self.failures = 0;
        self.refused = None;
    }

    /// The attempt has failed.
    pub(super) fn failed(&mut self, ending: &Ending) -> Next {
        let next = ending.next();
        let refused_before = self.refused.take();
        if !self.fallback {
            return next;
        }
        if self.is_answer(ending) {
            self.failures = 0;
            return next;
        }
        let used = self.transport;
        self.transport = self.after_failure();
        self.is_second = self.transport == Transport::Sse;
        if next != Next::GiveUp {
            return next;
        }
        self.refused = Some(used);
        match refused_before {
            Some(other) if other != used => Next::GiveUp,
            _ => Next::Reconnect,
        }
    }

    fn after_failure(&mut self) -> Transport {
        if self.transport == Transport::Sse {
            return Transport::WebSocket;
        }
        self.failures = self.failures.saturating_add(1);
        if self.had_web_socket && self.failures < FAILURES_MAX {
            Transport::WebSocket
        } else {
            Transport::Sse
        }
    }

    /// Whether the server itself ended the attempt, and no proxy.
    fn is_answer(&self, ending: &Ending) -> bool {
        if self.is_answered
            || ending.code.is_some()
            || ending.unsupported
            || ending.denied
            || ending.status == Some(401)
        {
            return true;
        }
        let is_absent = matches!(ending.status, Some(404 | 405 | 410));
        if self.transport == Transport::Sse && is_absent {
            return false;
        }
        let code = ending.error_code.as_deref();
        code.is_some_and(|code| !STRIPPED.contains(&code))
    }
}

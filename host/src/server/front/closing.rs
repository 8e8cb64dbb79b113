//! The end of an HTTP connection, so that the client sees the last answer.
//!
//! A socket that is closed with unread bytes is reset, and then the client loses the answer. So the server reads and discards
//! the client's data after the answer, within bounds.

use std::{
    io::{ErrorKind, Read, Write},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::stream::FrontStream;
use crate::session::Live;

/// How much is thrown away of a client, and for how long.
pub(super) struct Bounds {
    bytes_max: usize,
    time_max: Duration,
    /// Without a byte.
    silence_max: Duration,
}

/// After an answer: more than the largest component that operators push by default.
pub(super) const ANSWERED: Bounds = Bounds {
    bytes_max: 64 << 20,
    time_max: Duration::from_secs(30),
    silence_max: Duration::from_secs(5),
};

/// After a close frame to a client that was never let in.
pub(super) const REFUSED: Bounds = Bounds {
    bytes_max: 64 << 10,
    time_max: Duration::from_secs(5),
    silence_max: Duration::from_secs(5),
};

/// How long once the node goes down.
const STOP_TIME_MAX: Duration = Duration::from_millis(500);

const BUFFER_BYTES: usize = 16 << 10;

/// An answer to a client whose request cannot be answered by HTTP itself.
pub(super) struct LastWord {
    /// Such as `408 Request Timeout`.
    pub(super) status: &'static str,
    pub(super) code: &'static str,
    pub(super) message: &'static str,
    pub(super) may_retry: bool,
}

impl LastWord {
    /// The answer as it is sent.
    pub(super) fn to_text(&self) -> String {
        let Self {
            status,
            code,
            message,
            ..
        } = self;
        let body = serde_json::json!({"error": {"code": code, "message": message}}).to_string();
        let retry = if self.may_retry {
            "Retry-After: 1\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{retry}Connection: close\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends it, as far as the socket is writable.
    pub(super) fn say(&self, tcp: &TcpStream) {
        // A client that does not take it in has closed, or reads nothing anyway.
        let _ = (&*SockRef::from(tcp)).write(self.to_text().as_bytes());
    }
}

/// Answers a connection that there is no room for. A request that has come by `wait` is read before, so that the answer is not
/// lost in a reset.
pub(super) async fn refuse(tcp: TcpStream, word: &LastWord, wait: Duration) {
    let _ = timeout(wait, tcp.readable()).await;
    refuse_at_once(&tcp, word);
}

/// The same without waiting.
pub(super) fn refuse_at_once(tcp: &TcpStream, word: &LastWord) {
    let mut request = vec![0; BUFFER_BYTES];
    // Whatever it says, and whether it says anything.
    let _ = (&*SockRef::from(tcp)).read(&mut request);
    word.say(tcp);
}

/// Shuts down sending, and discards the client's data until the client shuts down too, or its place is needed.
pub(super) async fn rest(
    stream: FrontStream,
    bounds: &Bounds,
    stop: &CancellationToken,
    live: &Live,
) {
    let (tcp, ticket) = stream.into_parts();
    ticket.watch().lingers();
    tokio::select! {
        () = linger(tcp, bounds, stop) => {}
        _ = ticket.watch().overdue(live) => {}
    }
}

async fn linger(mut tcp: TcpStream, bounds: &Bounds, stop: &CancellationToken) {
    if tcp.shutdown().await.is_err() {
        return;
    }
    let mut end = Instant::now() + bounds.time_max;
    let mut bytes = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    while bytes < bounds.bytes_max {
        let silence_ends = (Instant::now() + bounds.silence_max).min(end);
        let hurried = Instant::now() + STOP_TIME_MAX;
        tokio::select! {
            ready = timeout_at(silence_ends, tcp.readable()) => match ready {
                Ok(Ok(())) => {}
                _ => return,
            },
            () = stop.cancelled(), if hurried < end => {
                end = hurried;
                continue;
            }
        }
        match tcp.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => bytes += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

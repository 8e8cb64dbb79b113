//! Ends an HTTP connection so that the client receives the last response.
//!
//! Closing a socket that has unread bytes resets the connection, and then the client loses the response. The server
//! therefore reads and discards the client's data after the response, within bounds.

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
use crate::session::ConfigHandle;

/// How much of a client's data is discarded, and for how long.
pub(super) struct Bounds {
    bytes_max: usize,
    time_max: Duration,
    /// The maximum time without a byte.
    silence_max: Duration,
}

/// After a response: more than the largest component that operators can push by default.
pub(super) const ANSWERED: Bounds = Bounds {
    bytes_max: 64 << 20,
    time_max: Duration::from_secs(30),
    silence_max: Duration::from_secs(5),
};

/// After a close frame to a client that was never admitted.
const REFUSED: Bounds = Bounds {
    bytes_max: 64 << 10,
    time_max: Duration::from_secs(5),
    silence_max: Duration::from_secs(5),
};

/// The maximum time once the node is shutting down.
const STOP_TIME_MAX: Duration = Duration::from_millis(500);

const BUFFER_BYTES: usize = 16 << 10;

/// A response to a client that the HTTP layer itself cannot answer.
pub(super) struct FinalResponse {
    /// Such as `408 Request Timeout`.
    pub(super) status: &'static str,
    pub(super) code: &'static str,
    pub(super) message: &'static str,
    pub(super) may_retry: bool,
}

impl FinalResponse {
    /// The response in the form that is sent.
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

    /// Sends the response, as far as the socket is writable.
    pub(super) fn say(&self, tcp: &TcpStream) {
        // A client that does not accept it has closed the connection, or reads nothing anyway.
        let _ = (&*SockRef::from(tcp)).write(self.to_text().as_bytes());
    }
}

/// Refuses a connection for which there is no room. A request that arrives within `wait` is read first, so that the
/// response is not lost in a reset.
pub(super) async fn refuse(tcp: TcpStream, word: &FinalResponse, wait: Duration) {
    let _ = timeout(wait, tcp.readable()).await;
    refuse_at_once(&tcp, word);
}

/// Like [`refuse`], but without waiting.
pub(super) fn refuse_at_once(tcp: &TcpStream, word: &FinalResponse) {
    let mut request = vec![0; BUFFER_BYTES];
    // The content of the request does not matter, nor whether there is one.
    let _ = (&*SockRef::from(tcp)).read(&mut request);
    word.say(tcp);
}

/// Sends the last bytes of a connection that does not become a WebSocket after all, and reads until the client has closed.
pub(in crate::http) async fn close_with(stream: FrontStream, last: &[u8], live: &ConfigHandle) {
    // A socket that has sent nothing but the head of a response has room for a frame.
    let _ = (&*SockRef::from(stream.tcp())).write(last);
    rest(stream, &REFUSED, &CancellationToken::new(), live).await;
}

/// Shuts down sending, and discards the client's data until the client shuts down too, a bound is reached, or the place
/// is needed for another socket.
pub(super) async fn rest(
    stream: FrontStream,
    bounds: &Bounds,
    stop: &CancellationToken,
    live: &ConfigHandle,
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

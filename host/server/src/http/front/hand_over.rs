//! Lets the handler of a request take the connection out of HTTP, after the head of its response.
//!
//! hyper does that only for upgrades. A response that lasts as long as a WebSocket needs neither hyper's buffers nor the limits of
//! HTTP connections, and is written like a WebSocket.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    http::{Response, header},
};
use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, oneshot},
    time::timeout,
};
use tracing::debug;

use super::stream::FrontStream;

/// A handler's claim on the connection of its request, an extension of the request.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct StreamClaim(Arc<Mutex<Option<oneshot::Sender<FrontStream>>>>);

/// A claimed connection.
#[derive(Debug)]
pub(super) struct HandOver {
    head: Vec<u8>,
    to: oneshot::Sender<FrontStream>,
}

/// The hand-over of one connection, once there is one.
#[derive(Debug, Default)]
pub(super) struct HandOverSlot {
    claimed: Mutex<Option<HandOver>>,
    changed: Notify,
}

impl StreamClaim {
    /// Claims the connection. It comes once the status and the headers of the handler's response are written; its body is ignored.
    pub(in crate::http) fn claim(&self) -> oneshot::Receiver<FrontStream> {
        let (give, taken) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(give);
        taken
    }

    /// The hand-over after `response`, if the connection was claimed.
    pub(super) fn hand_over(&self, response: &Response<Body>) -> Option<HandOver> {
        let claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        claimed.map(|to| HandOver {
            head: head(response),
            to,
        })
    }
}

impl HandOverSlot {
    /// Gives `hand_over` to the task of the connection.
    pub(super) fn put(&self, hand_over: HandOver) {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        *claimed = Some(hand_over);
        self.changed.notify_one();
    }

    /// Waits for a hand-over.
    pub(super) async fn take(&self) -> HandOver {
        loop {
            self.changed.notified().await;
            let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(hand_over) = claimed.take() {
                return hand_over;
            }
        }
    }
}

impl HandOver {
    /// Writes the head of the response to `stream`, within `write_time_max`, and gives the connection to the handler.
    pub(super) async fn finish(self, mut stream: FrontStream, write_time_max: Duration) {
        match timeout(write_time_max, stream.write_all(&self.head)).await {
            // If the handler is gone, so is the connection.
            Ok(Ok(())) => drop(self.to.send(stream)),
            Ok(Err(error)) => debug!(%error, "the head of a response was not written"),
            Err(_) => debug!("the head of a response was not taken in time"),
        }
    }
}

/// The head of a response whose body ends with the connection.
fn head(response: &Response<Body>) -> Vec<u8> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut head = Vec::with_capacity(512);
    // Writing to memory does not fail.
    let _ = write!(
        head,
        "HTTP/1.1 {} {reason}\r\nDate: {date}\r\nConnection: close\r\n",
        status.as_u16()
    );
    // The router adds the length of the body that is ignored.
    let headers = response.headers().iter();
    for (name, value) in headers.filter(|(name, _)| **name != header::CONTENT_LENGTH) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

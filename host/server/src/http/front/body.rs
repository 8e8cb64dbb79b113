//! Wraps the body of a request, so that the part that its handler leaves unread can be drained, and the body of a
//! response, so that its end is noticed.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body as AnyBody;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use super::watch::HttpWatch;

/// Bytes that are read of an unwanted body, so that the connection can serve the next request. If the body is longer,
/// the connection is closed.
const SETTLE_BYTES_MAX: u64 = 64 << 10;
const SETTLE_TIME_MAX: Duration = Duration::from_secs(1);

/// The body of a request, which the handler sees through a view.
pub(super) struct RequestBody(Arc<Mutex<BodyState>>);

struct BodyState {
    incoming: Incoming,
    /// Whether the handler began to read the body. A client that sent `Expect: 100-continue` waits for that.
    is_wanted: bool,
}

/// The handler's view of the body.
struct View(Arc<Mutex<BodyState>>);

impl RequestBody {
    /// Takes a body, and returns it with the handler's view of it.
    pub(super) fn new(incoming: Incoming) -> (Self, AnyBody) {
        let state = BodyState {
            incoming,
            is_wanted: false,
        };
        let shared = Arc::new(Mutex::new(state));
        (Self(shared.clone()), AnyBody::new(View(shared)))
    }

    /// Reads the rest of the body, within bounds. Returns whether the body ended, so that another request can follow.
    pub(super) async fn settle(self, client_waits_for_continue: bool) -> bool {
        {
            let state = locked(&self.0);
            if state.incoming.is_end_stream() {
                return true;
            }
            let is_long = state.incoming.size_hint().lower() > SETTLE_BYTES_MAX;
            if is_long || client_waits_for_continue && !state.is_wanted {
                return false;
            }
        }
        timeout(SETTLE_TIME_MAX, self.drain())
            .await
            .unwrap_or(false)
    }

    async fn drain(&self) -> bool {
        let mut bytes = 0;
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut locked(&self.0).incoming).poll_frame(cx)).await;
            match frame {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            }
            if bytes > SETTLE_BYTES_MAX {
                return false;
            }
        }
    }
}

fn locked(state: &Mutex<BodyState>) -> MutexGuard<'_, BodyState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for View {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut state = locked(&self.0);
        state.is_wanted = true;
        Pin::new(&mut state.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        locked(&self.0).incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        locked(&self.0).incoming.size_hint()
    }
}

/// The body of a response. hyper drops it once it is written.
pub(super) struct ResponseBody {
    body: AnyBody,
    watch: Arc<HttpWatch>,
}

impl ResponseBody {
    pub(super) fn new(body: AnyBody, watch: Arc<HttpWatch>) -> Self {
        Self { body, watch }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.watch.answered();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

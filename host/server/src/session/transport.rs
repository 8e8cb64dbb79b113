//! The socket of one session, and the outbox whose frames it sends.

use std::{
    future::{pending, poll_fn},
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use signalbox_protocol::CloseCode;
use signalbox_router::{CloseRequest, Connection, Outbox};
use signalbox_websocket as websocket;

use super::{Incoming, Socket, SocketError};

/// A socket whose sending half belongs to the outbox of its connection, from [`Transport::open`] until the outbox is detached.
pub(super) struct Transport<S> {
    socket: S,
    connection: Arc<Connection>,
}

impl<S: Socket> Transport<S> {
    pub(super) fn new(socket: S, connection: Arc<Connection>) -> Self {
        Self { socket, connection }
    }

    /// The socket, for its counters.
    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    /// Lets the outbox write. Frames that were pushed before are sent with the next write.
    pub(super) fn open(&mut self) {
        if let Some(sink) = self.socket.take_sink() {
            self.outbox().attach(sink);
        }
    }

    /// The client's next message; `None` once the connection is over. Answers pings and close frames.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, SocketError>>> {
        let read = ready!(self.socket.poll_read(cx));
        let outbox = self.connection.outbox();
        match &read {
            Some(Ok(Incoming::Ping(payload))) => outbox.push_pong(websocket::pong(payload)),
            Some(Ok(Incoming::Close { code, .. })) => {
                // Nothing is sent after the answer to a close frame.
                outbox.close(CloseCode::NORMAL, "");
                outbox.push_close(S::close(*code, ""));
            }
            _ => {}
        }
        Poll::Ready(read)
    }

    /// Writes the outbox. Ready with a close request; some frames before it may not be written yet.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CloseRequest>> {
        let socket = &self.socket;
        let outbox = self.connection.outbox();
        outbox.poll_write(cx, |cx| socket.poll_room(cx))
    }

    /// The key with which the client sends frames by other requests, if it does.
    pub(super) fn send_key(&self) -> Option<String> {
        self.socket.send_key()
    }

    /// Whether the client takes nothing, although something waits for it.
    pub(super) fn is_blocked(&self) -> bool {
        self.outbox().is_blocked()
    }

    /// Sends a ping with the next write.
    pub(super) fn ping(&self) {
        self.outbox().push_ping(S::ping());
    }

    /// Sets the largest frame that the client may send from now on.
    pub(super) fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.socket.set_frame_bytes_max(bytes);
    }

    /// Ends the connection: sends the close frame `owed`, or else the answer to the client's close frame, if there is one. May
    /// never return, so the caller must bound its time.
    ///
    /// # Errors
    /// Returns [`SocketError`] if the client is already gone.
    pub(super) async fn say_goodbye(
        &mut self,
        owed: Option<CloseRequest>,
    ) -> Result<(), SocketError> {
        if let Some(request) = &owed {
            let close = S::close(request.code.number(), &request.reason);
            self.outbox().push_close(close);
        }
        // Messages are no longer handled, and must not take memory or time.
        self.socket.skip_messages();
        poll_fn(|cx| self.poll_drain(cx)).await?;
        let Some(request) = owed else {
            return Ok(());
        };
        if !S::CLIENT_ANSWERS {
            self.outbox().detach();
            poll_fn(|cx| self.socket.poll_discard(cx)).await;
            return Ok(());
        }
        if request.code == CloseCode::FLOOD {
            // Reading stops, so TCP flow control holds the client back until the time to close is over.
            self.outbox().detach();
            return pending().await;
        }
        while let Some(Ok(frame)) = poll_fn(|cx| self.socket.poll_read(cx)).await {
            if matches!(frame, Incoming::Close { .. }) {
                return Ok(());
            }
        }
        // The outbox is empty; this ends the sending half.
        self.outbox().detach();
        poll_fn(|cx| self.socket.poll_discard(cx)).await;
        Ok(())
    }

    fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox().poll_drain(cx, |cx| self.socket.poll_room(cx))
    }

    fn outbox(&self) -> &Outbox {
        self.connection.outbox()
    }
}

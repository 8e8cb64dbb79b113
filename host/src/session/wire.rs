//! The socket of one session, and the outbox that is written to it.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{Incoming, Socket, SocketError, socket};
use crate::{
    protocol::CloseCode,
    router::{CloseRequest, Connection, Outbox},
};

/// Longest reason in a close frame, in bytes (RFC 6455 §5.5: 125 with the code).
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// A socket whose sending side is lent to the outbox of its connection, from [`Wire::open`] until this is dropped.
pub(super) struct Wire<S> {
    socket: S,
    connection: Arc<Connection>,
}

impl<S: Socket> Wire<S> {
    pub(super) fn new(socket: S, connection: Arc<Connection>) -> Self {
        Self { socket, connection }
    }

    /// Lets the outbox write. What was pushed before is written with the next write.
    pub(super) fn open(&mut self) {
        if let Some(sink) = self.socket.take_sink() {
            self.outbox().attach(sink);
        }
    }

    /// The next frame of the client; none once the connection is over. Control frames are answered.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, SocketError>>> {
        let read = ready!(self.socket.poll_read(cx));
        if let Some(Ok(Incoming::Control | Incoming::Close { .. })) = &read {
            let outbox = self.connection.outbox();
            if matches!(read, Some(Ok(Incoming::Close { .. }))) {
                // Nothing comes after the answer to a close.
                outbox.close(CloseCode::NORMAL, "");
            }
            if let Some(reply) = self.socket.take_reply() {
                outbox.push_control(reply);
            }
        }
        Poll::Ready(read)
    }

    /// Writes what waits in the outbox. Ready with a close request once everything before it is written, or where the
    /// client is too slow to wait for.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CloseRequest>> {
        let socket = &self.socket;
        let outbox = self.connection.outbox();
        outbox.poll_write(cx, |cx| socket.poll_room(cx))
    }

    /// Asks the client for a sign of life, with the next write.
    pub(super) fn ping(&self) {
        self.outbox().push_control(socket::ping());
    }

    /// Bounds what the client may send from now on.
    pub(super) fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.socket.set_frame_bytes_max(bytes);
    }

    /// Ends the connection: with the close frame that is owed, and else with whatever answer the socket has.
    ///
    /// # Errors
    /// [`SocketError`] where the client is gone already.
    pub(super) async fn say_goodbye(
        &mut self,
        owed: Option<CloseRequest>,
    ) -> Result<(), SocketError> {
        if let Some(request) = &owed {
            let reason = &request.reason;
            let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
            self.outbox()
                .push_control(socket::close(request.code.number(), reason));
        }
        poll_fn(|cx| self.poll_drain(cx)).await?;
        if owed.is_none() {
            return Ok(());
        }
        // What is read here is not answered: nothing comes after a close frame.
        while let Some(Ok(frame)) = poll_fn(|cx| self.socket.poll_read(cx)).await {
            if matches!(frame, Incoming::Close { .. }) {
                return Ok(());
            }
        }
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

impl<S> Drop for Wire<S> {
    fn drop(&mut self) {
        self.connection.outbox().detach();
    }
}

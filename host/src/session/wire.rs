//! The socket of one session, and the frames on their way into it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
};

use super::{Incoming, Outgoing, Socket, SocketError};
use crate::{
    protocol::Frame,
    router::{CloseRequest, Outbox},
};

/// Longest reason in a close frame, in bytes (RFC 6455 §5.5: 125 with the code).
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// A socket with what was taken out of the outbox and is not in it yet.
pub(super) struct Wire<S> {
    socket: S,
    writing: VecDeque<Frame>,
    unflushed: bool,
}

impl<S: Socket> Wire<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket,
            writing: VecDeque::new(),
            unflushed: false,
        }
    }

    /// Sends `frame` before everything that waits in the outbox.
    pub(super) fn send_first(&mut self, frame: Frame) {
        self.writing.push_back(frame);
    }

    /// The next frame of the client; none once the connection is over.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, SocketError>>> {
        self.socket.poll_read(cx)
    }

    /// Writes what waits in `outbox`. Ready with a close request once everything before it is written, or where the
    /// client is too slow to wait for.
    pub(super) fn poll_write(
        &mut self,
        outbox: &Outbox,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CloseRequest, SocketError>> {
        loop {
            while !self.writing.is_empty() {
                if let Some(request) = outbox.slow_close() {
                    return Poll::Ready(Ok(request));
                }
                match self.socket.poll_ready(cx) {
                    Poll::Ready(result) => result?,
                    // The socket takes nothing now; a full outbox must still be noticed.
                    Poll::Pending => return outbox.poll_slow_close(cx.waker()).map(Ok),
                }
                if let Some(frame) = self.writing.pop_front() {
                    self.socket.start_send(Outgoing::Text(frame))?;
                    self.unflushed = true;
                }
            }
            match outbox.poll_take(&mut self.writing, cx.waker()) {
                Poll::Ready(None) => {}
                Poll::Ready(Some(request)) => return Poll::Ready(Ok(request)),
                Poll::Pending => break,
            }
        }
        // A connection at rest holds no queue.
        if self.writing.capacity() > 0 {
            self.writing = VecDeque::new();
        }
        if self.unflushed && self.socket.poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Asks the client for a sign of life, with the next write.
    pub(super) fn ping(&mut self) {
        // A socket that takes no ping is found lost by the next read.
        if self.socket.start_send(Outgoing::Ping).is_ok() {
            self.unflushed = true;
        }
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
        outbox: &Outbox,
        owed: Option<CloseRequest>,
    ) -> Result<(), SocketError> {
        let Some(request) = owed else {
            return poll_fn(|cx| self.socket.poll_flush(cx)).await;
        };
        let mut reason = request.reason;
        reason.truncate(reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX));
        poll_fn(|cx| self.poll_write(outbox, cx)).await?;
        poll_fn(|cx| self.socket.poll_ready(cx)).await?;
        self.socket.start_send(Outgoing::Close {
            code: request.code.number(),
            reason,
        })?;
        poll_fn(|cx| self.socket.poll_flush(cx)).await?;
        while let Some(Ok(frame)) = poll_fn(|cx| self.socket.poll_read(cx)).await {
            if matches!(frame, Incoming::Close { .. }) {
                return Ok(());
            }
        }
        poll_fn(|cx| self.socket.poll_discard(cx)).await;
        Ok(())
    }
}

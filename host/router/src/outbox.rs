//! The queue of frames for one connection, bounded in bytes, and the writing of its frames.
//!
//! Any task may push, and any task may write queued frames to the socket as far as it accepts them. A message to a
//! client with a writable socket therefore costs no turn of that client's session. If the socket is full, the session
//! waits until it is writable.

mod queue;

use std::{
    io::{self, IoSlice},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use signalbox_protocol::{CloseCode, Frame};
use tokio::net::tcp::OwnedWriteHalf;

use self::queue::FrameQueue;

/// Charged for a queued frame in addition to its bytes: its place in the queue and its share of the allocation. Without it,
/// many tiny frames could take much more memory than the limit.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Maximum number of pings and pongs that are queued at a time. More pongs are not needed: RFC 6455 §5.5.3 lets a
/// server answer only the latest ping.
const CONTROLS_MAX: usize = 64;

/// The sending half of a socket.
pub trait SocketSink: Send + Sync {
    /// Writes `first`, then `second`, without blocking, and returns the number of bytes written. Either may be empty.
    ///
    /// # Errors
    /// Returns `WouldBlock` if nothing can be written now; any other error means that the connection is broken.
    fn try_write(&self, first: &[u8], second: &[u8]) -> io::Result<usize>;

    /// The encoder of the frames that are written to it; `None`: they are sent as text frames of a WebSocket.
    fn encoder(&mut self) -> Option<&mut dyn FrameEncoder> {
        None
    }
}

/// Encodes frames for a transport other than a WebSocket.
pub trait FrameEncoder {
    /// The bytes that are sent for `frame`. Called once for each frame, in the order in which they are written.
    fn encode(&mut self, frame: &Frame) -> Bytes;
}

impl SocketSink for OwnedWriteHalf {
    fn try_write(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        if second.is_empty() {
            return OwnedWriteHalf::try_write(self, first);
        }
        self.try_write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
    }
}

/// A queue that any task may push to.
///
/// Pushing never waits. A connection whose queue exceeds its bound is closed with 4001; no other connection is
/// affected. Every message that was accepted is either written or counted as lost, by [`PushError::Full`] or
/// [`Outbox::detach`].
#[derive(Default)]
pub struct Outbox {
    state: Mutex<OutboxState>,
    /// A copy of the count in the state that can be read without the lock.
    written: AtomicU64,
    /// Whether something was written after the socket was full, so the client has read something.
    took_more: AtomicBool,
}

#[derive(Default)]
struct OutboxState {
    queue: FrameQueue,
    /// `None` before the session serves and after it has ended.
    sink: Option<Box<dyn SocketSink>>,
    /// Whether the socket is full. The session then waits until it is writable, and no other task needs to try.
    blocked: bool,
    close: Option<CloseRequest>,
    /// Whether the close frame is queued, or writing has ended: nothing may follow.
    ended: bool,
    session: Option<Waker>,
    /// Whether the session was woken while it was awake.
    woken: bool,
    /// A task that waits until the queue is shorter.
    waiting: Option<Waker>,
}

/// How a connection should be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseRequest {
    /// The code of the close frame.
    pub code: CloseCode,
    /// The reason, for people; truncated to fit in a close frame.
    pub reason: String,
}

/// The work that remains for a frame that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingWrite {
    /// The caller must write it, by [`Outbox::flush`] or [`Outbox::wake_to_write`].
    Unwritten,
    /// The socket is full; the session flushes it once it becomes writable.
    Blocked,
}

/// The reason why a frame was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The queue is full. The connection is being closed because of it.
    Full {
        /// The number of messages that were accepted before and are now lost.
        lost: usize,
    },
    /// The connection is being closed.
    Closing,
}

impl Outbox {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues `frame` if at most `bytes_max` bytes are then queued; an empty queue accepts any frame. If `is_message`,
    /// it counts as lost if it is accepted and not written.
    ///
    /// # Errors
    /// Returns [`PushError`] if the frame was not accepted.
    pub fn push(
        &self,
        frame: Frame,
        is_message: bool,
        bytes_max: usize,
    ) -> Result<PendingWrite, PushError> {
        let mut state = self.state();
        if state.close.is_some() || state.ended {
            return Err(PushError::Closing);
        }
        let bytes = state.queue.bytes() + frame.len() + FRAME_OVERHEAD_BYTES;
        if bytes > bytes_max && state.queue.bytes() > 0 {
            // The queued frames would never be read: free their memory at once.
            let lost = state.queue.abandon();
            let reason = "the client reads too slowly".to_owned();
            state.close = Some(CloseRequest {
                code: CloseCode::SLOW_CONSUMER,
                reason,
            });
            wake(state);
            return Err(PushError::Full { lost });
        }
        state.queue.push(frame, is_message);
        Ok(if state.blocked {
            PendingWrite::Blocked
        } else {
            PendingWrite::Unwritten
        })
    }

    /// Queues `frame` before all other frames of an outbox from which nothing was written yet, regardless of the bound.
    pub fn push_first(&self, frame: Frame) {
        let mut state = self.state();
        if !state.ended {
            state.queue.push_first(frame);
        }
    }

    /// Ready once a frame of `len` bytes can be queued without exceeding `bytes_max`, or the connection is being closed. One
    /// task may wait at a time.
    pub fn poll_has_room(&self, cx: &mut Context<'_>, len: usize, bytes_max: usize) -> Poll<()> {
        let mut state = self.state();
        let queued = state.queue.bytes();
        let fits = queued == 0 || queued + len + FRAME_OVERHEAD_BYTES <= bytes_max;
        if fits || state.close.is_some() || state.ended {
            state.waiting = None;
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Asks the session to close. Queued frames are still written, in bounded time. Only the first request counts.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) {
        let mut state = self.state();
        if state.close.is_none() {
            state.close = Some(CloseRequest {
                code,
                reason: reason.into(),
            });
            wake(state);
        }
    }

    /// Whether a close was requested.
    pub fn is_closing(&self) -> bool {
        self.state().close.is_some()
    }

    /// Makes the session write the queued frames. A session that is awake does so before it sleeps.
    pub fn wake_to_write(&self) {
        wake(self.state());
    }

    /// Wakes the session although no new frame is queued, so that it checks everything else.
    pub fn wake(&self) {
        let mut state = self.state();
        state.woken = state.session.is_none();
        wake(state);
    }

    /// Writes queued frames as far as the socket accepts them. The session handles the rest, and errors.
    pub fn flush(&self) {
        let mut state = self.state();
        if state.blocked {
            return;
        }
        let written = state.write();
        self.note_written(&state);
        if written.is_err() {
            state.blocked = true;
            wake(state);
        }
    }

    /// From now on, queued frames are written to `sink`.
    pub fn attach(&self, sink: Box<dyn SocketSink>) {
        self.state().sink = Some(sink);
    }

    /// Ends writing, and drops the sending half. Returns the number of messages that were accepted and are now lost; a
    /// partly written frame is lost, too.
    pub fn detach(&self) -> usize {
        let mut state = self.state();
        let lost = state.queue.clear();
        state.ended = true;
        let sink = state.sink.take();
        drop(state);
        // Closing a socket is a system call, so it happens after the lock is released.
        drop(sink);
        lost
    }

    /// Whether queued frames wait because the socket is full.
    pub fn is_blocked(&self) -> bool {
        self.state().blocked
    }

    /// Queues a ping, or another frame that only shows that the connection lives, before all other frames.
    pub fn push_ping(&self, encoded: Bytes) {
        // One more than the maximum for pongs, so that pongs cannot keep the ping out.
        self.push_control(encoded, CONTROLS_MAX + 1);
    }

    /// Queues a pong before all other frames. Skipped if [`CONTROLS_MAX`] are queued already.
    pub fn push_pong(&self, encoded: Bytes) {
        self.push_control(encoded, CONTROLS_MAX);
    }

    fn push_control(&self, encoded: Bytes, most: usize) {
        let mut state = self.state();
        if state.queue.controls() < most && !state.ended {
            state.queue.push_control(encoded);
        }
    }

    /// Queues the close frame, regardless of the bound; it is the last frame. Only the first one counts.
    pub fn push_close(&self, encoded: Bytes) {
        let mut state = self.state();
        if !state.ended {
            state.ended = true;
            state.queue.push_close(encoded);
        }
    }

    /// The number of bytes written since the start, including frame headers.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether something was written after the socket was full, since the last call.
    pub fn took_more(&self) -> bool {
        self.took_more.load(Ordering::Relaxed) && self.took_more.swap(false, Ordering::Relaxed)
    }

    fn note_written(&self, state: &OutboxState) {
        self.written
            .store(state.queue.written_in_all(), Ordering::Relaxed);
    }

    /// Writes queued frames for the session. Ready with a close request, even if frames are still queued: a client that does
    /// not read cannot delay its end. Otherwise the session is woken when there is something to do. `poll_room` is ready
    /// once the socket may be writable.
    ///
    /// # Errors
    /// Returns the errors of the socket.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        mut poll_room: impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<CloseRequest>> {
        let mut state = self.state();
        if let Some(close) = &state.close {
            return Poll::Ready(Ok(close.clone()));
        }
        self.drive(&mut state, cx, &mut poll_room)?;
        state.sleep(cx.waker());
        Poll::Pending
    }

    /// Ready once all queued frames are written, regardless of close requests.
    ///
    /// # Errors
    /// Returns the errors of the socket.
    pub fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        mut poll_room: impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if self.drive(&mut state, cx, &mut poll_room)? {
            return Poll::Ready(Ok(()));
        }
        state.sleep(cx.waker());
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether everything is written. If not, `poll_room` wakes the task.
    fn drive(
        &self,
        state: &mut OutboxState,
        cx: &mut Context<'_>,
        poll_room: &mut impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> io::Result<bool> {
        loop {
            let before = state.queue.written_in_all();
            let written = state.write();
            if state.blocked && state.queue.written_in_all() > before {
                self.took_more.store(true, Ordering::Relaxed);
            }
            self.note_written(state);
            match written {
                Ok(()) => {
                    state.blocked = false;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            state.blocked = true;
            match poll_room(cx) {
                Poll::Ready(room) => room?,
                Poll::Pending => return Ok(false),
            }
        }
    }
}

impl OutboxState {
    fn write(&mut self) -> io::Result<()> {
        let Some(sink) = &mut self.sink else {
            return Ok(());
        };
        let written = self.queue.write(&mut **sink);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        written
    }

    /// Stores the waker. A session that was woken while it was awake takes another turn at once.
    fn sleep(&mut self, waker: &Waker) {
        if std::mem::take(&mut self.woken) {
            waker.wake_by_ref();
        }
        let known = self.session.as_ref();
        if !known.is_some_and(|session| session.will_wake(waker)) {
            self.session = Some(waker.clone());
        }
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbox({} bytes)", self.state().queue.bytes())
    }
}

/// Wakes the session after releasing the lock, so that the session does not block on it.
fn wake(mut state: MutexGuard<'_, OutboxState>) {
    let session = state.session.take();
    drop(state);
    if let Some(session) = session {
        session.wake();
    }
}

#[cfg(test)]
mod tests;

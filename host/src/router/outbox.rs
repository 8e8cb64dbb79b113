//! The frames that wait for one connection, bounded in bytes, and the writing of them.
//!
//! Anybody may push, and anybody may write what waits to the socket as far as it takes it: a message to a client whose
//! socket has room costs no turn of that client's session. Where the socket has none the session waits for room.

mod queue;

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use self::queue::Queue;
use crate::protocol::{CloseCode, Frame};

/// What is charged for a queued frame beside its bytes: its place in the queue and its share of the allocation.
/// Without it, many tiny frames could take much more memory than the limit says.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Pings and pongs that wait at a time. More pongs are not needed: RFC 6455 §5.5.3 lets a server answer the latest
/// ping alone.
const CONTROLS_MAX: usize = 64;

/// The sending side of a socket.
pub trait Sink: Send + Sync {
    /// Hands `first`, then `second`, to the system as far as it takes them now, and says how many bytes it took. Either
    /// may be empty.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; else the connection is broken.
    fn try_write(&self, first: &[u8], second: &[u8]) -> io::Result<usize>;
}

/// A queue that anybody may push to.
///
/// Pushing never waits. A connection whose queue is over its bound is closed with 4001: it alone pays for not reading.
/// Every message that was taken is either written or counted as lost by one of [`PushError::Full`] and
/// [`Outbox::detach`].
#[derive(Default)]
pub struct Outbox {
    state: Mutex<State>,
    /// Copied from the state, to be read without its lock.
    written: AtomicU64,
    /// Something was written after the socket had no room: the client's side has taken something in.
    took_more: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// None before the session serves and after it is over.
    sink: Option<Box<dyn Sink>>,
    /// The socket has no room: its session waits for some, and nobody else needs to try.
    blocked: bool,
    close: Option<CloseRequest>,
    /// The close frame is queued, or nothing is written any more: nothing may follow.
    ended: bool,
    session: Option<Waker>,
    /// The session was to be woken and is about to sleep.
    woken: bool,
}

/// How a connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseRequest {
    /// The code of the close frame.
    pub code: CloseCode,
    /// Its reason, for people; cut to what a close frame holds.
    pub reason: String,
}

/// What is left to do for a frame that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// To write it, by [`Outbox::flush`] or by [`Outbox::wake_to_write`].
    Unwritten,
    /// Nothing: the session writes it once the socket has room.
    Blocked,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The queue is full. The connection is being closed for it.
    Full {
        /// Messages that were taken before and are lost now.
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

    /// Queues `frame` if at most `bytes_max` wait then; an empty queue takes any frame. `is_message`: it counts as lost if
    /// it is taken and not written.
    ///
    /// # Errors
    /// [`PushError`]; the frame is lost to this connection.
    pub fn push(
        &self,
        frame: Frame,
        is_message: bool,
        bytes_max: usize,
    ) -> Result<Pushed, PushError> {
        let mut state = self.state();
        if state.close.is_some() || state.ended {
            return Err(PushError::Closing);
        }
        let bytes = state.queue.bytes() + frame.len() + FRAME_OVERHEAD_BYTES;
        if bytes > bytes_max && state.queue.bytes() > 0 {
            // What waits would never be read: give its memory back at once.
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
            Pushed::Blocked
        } else {
            Pushed::Unwritten
        })
    }

    /// Asks the session to close. What is queued is still written, in bounded time. The first request counts.
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

    /// Whether a close was asked for.
    pub fn is_closing(&self) -> bool {
        self.state().close.is_some()
    }

    /// Has the session write what waits. One that is awake does so before it sleeps.
    pub fn wake_to_write(&self) {
        wake(self.state());
    }

    /// Wakes the session, although nothing new waits for it: it looks at the rest of its world.
    pub fn wake(&self) {
        let mut state = self.state();
        state.woken = state.session.is_none();
        wake(state);
    }

    /// Writes what waits, as far as the socket takes it. What it does not take, and what went wrong, is the session's.
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

    /// From now on what waits is written to `sink`.
    pub fn attach(&self, sink: Box<dyn Sink>) {
        self.state().sink = Some(sink);
    }

    /// Nothing is written any more, and the sending side is given back. Returns how many messages were taken and are
    /// lost now; a frame that was written in part is lost, too.
    pub fn detach(&self) -> usize {
        let mut state = self.state();
        let lost = state.queue.clear();
        state.ended = true;
        let sink = state.sink.take();
        drop(state);
        // Closing a socket is a call of the system: not under the lock.
        drop(sink);
        lost
    }

    /// Queues a ping, before what else waits.
    pub fn push_ping(&self, encoded: Bytes) {
        // One more than there are pongs, so that pongs cannot keep it out.
        self.push_control(encoded, CONTROLS_MAX + 1);
    }

    /// Queues a pong, before what else waits. Left out if [`CONTROLS_MAX`] wait already.
    pub fn push_pong(&self, encoded: Bytes) {
        self.push_control(encoded, CONTROLS_MAX);
    }

    fn push_control(&self, encoded: Bytes, most: usize) {
        let mut state = self.state();
        if state.queue.controls() < most && !state.ended {
            state.queue.push_control(encoded);
        }
    }

    /// Queues the close frame, whatever waits; it is the last frame. Only the first one counts.
    pub fn push_close(&self, encoded: Bytes) {
        let mut state = self.state();
        if !state.ended {
            state.ended = true;
            state.queue.push_close(encoded);
        }
    }

    /// Bytes that were ever written, frame headers included.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether, since it was last asked, something was written after the socket had had no room.
    pub fn took_more(&self) -> bool {
        self.took_more.load(Ordering::Relaxed) && self.took_more.swap(false, Ordering::Relaxed)
    }

    fn note_written(&self, state: &State) {
        self.written
            .store(state.queue.written_in_all(), Ordering::Relaxed);
    }

    /// The session's part: writes what waits. Ready with a close request, whatever still waits then: a client that does not
    /// read cannot put off its end. Else the session is woken when there is something to do. `poll_room` is ready once the
    /// socket may have room.
    ///
    /// # Errors
    /// The socket's.
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

    /// Ready once everything is written that waits, whatever was asked for.
    ///
    /// # Errors
    /// The socket's.
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything is written; if it is not, `poll_room` will wake.
    fn drive(
        &self,
        state: &mut State,
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

impl State {
    fn write(&mut self) -> io::Result<()> {
        match &self.sink {
            Some(sink) => self.queue.write(&**sink),
            None => Ok(()),
        }
    }

    /// Notes whom to wake. A session that was woken while it was awake takes another turn at once.
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

/// Wakes the session, with the lock given back first, so that it does not run into it.
fn wake(mut state: MutexGuard<'_, State>) {
    let session = state.session.take();
    drop(state);
    if let Some(session) = session {
        session.wake();
    }
}

#[cfg(test)]
mod tests;

//! The frames that wait for one connection, bounded in bytes.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use crate::protocol::{CloseCode, Frame};

/// What is charged for a queued frame beside its bytes: its place in the queue and its share of the allocation.
/// Without it, many tiny frames could take much more memory than the limit says.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// A queue that anybody may push to and one session takes from.
///
/// Pushing never waits. A connection whose queue is over its bound is told to close with 4001: it alone pays for not
/// reading.
#[derive(Debug)]
pub struct Outbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    close: Option<CloseRequest>,
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

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The queue is full. The connection is being closed for it.
    Full,
    /// The connection is being closed.
    Closing,
}

impl Outbox {
    /// An empty queue.
    pub fn new() -> Self {
        Self(Mutex::new(State::default()))
    }

    /// Queues `frame`, where at most `bytes_max` wait then.
    ///
    /// # Errors
    /// [`PushError`]; the frame is lost to this connection.
    pub fn push(&self, frame: Frame, bytes_max: usize) -> Result<(), PushError> {
        let mut state = self.state();
        if state.close.is_some() {
            return Err(PushError::Closing);
        }
        let bytes = state.bytes + frame.len() + FRAME_OVERHEAD_BYTES;
        if bytes > bytes_max {
            // What waits would never be read: give its memory back at once.
            state.frames = VecDeque::new();
            state.bytes = 0;
            let reason = "the client reads too slowly".to_owned();
            state.close = Some(CloseRequest {
                code: CloseCode::SLOW_CONSUMER,
                reason,
            });
            wake(state);
            return Err(PushError::Full);
        }
        state.bytes = bytes;
        state.frames.push_back(frame);
        // Whoever pushed first woke the session; it takes everything that is there.
        if state.frames.len() == 1 {
            wake(state);
        }
        Ok(())
    }

    /// Asks the session to close, after what is queued. The first request counts.
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

    /// Wakes the session, although nothing new waits for it: it looks at the rest of its world.
    pub fn wake(&self) {
        let mut state = self.state();
        state.woken = state.session.is_none();
        wake(state);
    }

    /// Swaps everything that waits into the empty `frames`. Where nothing does: the close request, if there is one,
    /// else the session is woken by the next frame or request.
    pub fn poll_take(
        &self,
        frames: &mut VecDeque<Frame>,
        waker: &Waker,
    ) -> Poll<Option<CloseRequest>> {
        let mut state = self.state();
        if !state.frames.is_empty() {
            std::mem::swap(&mut state.frames, frames);
            state.bytes = 0;
            return Poll::Ready(None);
        }
        if let Some(close) = &state.close {
            return Poll::Ready(Some(close.clone()));
        }
        state.sleep(waker);
        Poll::Pending
    }

    /// The close request of a client that reads too slowly: the only one that does not wait for what is queued.
    pub fn slow_close(&self) -> Option<CloseRequest> {
        self.state()
            .close
            .clone()
            .filter(|close| close.code == CloseCode::SLOW_CONSUMER)
    }

    /// As [`Outbox::slow_close`]; where there is none, the session is woken when something changes.
    pub fn poll_slow_close(&self, waker: &Waker) -> Poll<CloseRequest> {
        let mut state = self.state();
        match &state.close {
            Some(close) if close.code == CloseCode::SLOW_CONSUMER => Poll::Ready(close.clone()),
            _ => {
                state.sleep(waker);
                Poll::Pending
            }
        }
    }

    /// Whether a close was asked for.
    pub fn is_closing(&self) -> bool {
        self.state().close.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
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
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame {
        Frame::from(text.to_owned())
    }

    fn take(outbox: &Outbox) -> (Poll<Option<CloseRequest>>, Vec<String>) {
        let mut frames = VecDeque::new();
        let poll = outbox.poll_take(&mut frames, Waker::noop());
        (
            poll,
            frames
                .iter()
                .map(|frame| frame.as_str().to_owned())
                .collect(),
        )
    }

    #[test]
    fn frames_come_out_in_order_and_all_at_once() {
        let outbox = Outbox::new();
        assert_eq!(take(&outbox), (Poll::Pending, vec![]));
        outbox.push(frame("a"), 1000).unwrap();
        outbox.push(frame("b"), 1000).unwrap();
        assert_eq!(
            take(&outbox),
            (Poll::Ready(None), vec!["a".into(), "b".into()])
        );
        assert_eq!(take(&outbox), (Poll::Pending, vec![]));
    }

    #[test]
    fn a_full_outbox_closes_with_4001_and_gives_its_memory_back() {
        let outbox = Outbox::new();
        outbox.push(frame("a"), 65).unwrap();
        assert_eq!(outbox.push(frame("b"), 65), Err(PushError::Full));
        assert_eq!(outbox.push(frame("c"), 65), Err(PushError::Closing));
        let (poll, frames) = take(&outbox);
        assert!(frames.is_empty());
        assert!(matches!(poll, Poll::Ready(Some(close)) if close.code == CloseCode::SLOW_CONSUMER));
    }

    #[test]
    fn a_close_comes_after_what_is_queued_and_the_first_one_counts() {
        let outbox = Outbox::new();
        outbox.push(frame("a"), 1000).unwrap();
        outbox.close(CloseCode::KICKED, "first");
        outbox.close(CloseCode::DRAIN, "second");
        assert_eq!(take(&outbox), (Poll::Ready(None), vec!["a".into()]));
        assert!(
            matches!(take(&outbox).0, Poll::Ready(Some(close)) if close.code == CloseCode::KICKED)
        );
    }
}

//! The frames that clients post by HTTP to connections of this node that can only be written to.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use dashmap::DashMap;
use signalbox_broker::{PostOutcome, PostedFrame, SendKey};

/// The most frames that wait for a connection.
const FRAMES_MAX: usize = 32;

/// The most bytes that wait for a connection, unless it is a single frame.
const WAITING_BYTES_MAX: usize = 256 << 10;

/// The connections that frames can be posted to, by their IDs.
#[derive(Debug, Default)]
pub struct PostBoxes(DashMap<Box<str>, Arc<PostBox>>);

/// The frames that wait for one connection.
#[derive(Debug)]
struct PostBox {
    key: SendKey,
    frame_bytes_max: AtomicUsize,
    state: Mutex<PostBoxState>,
}

#[derive(Debug, Default)]
struct PostBoxState {
    frames: VecDeque<String>,
    bytes: usize,
    is_closed: bool,
    reader: Option<Waker>,
}

/// The connection's end of its box, which takes frames until this is dropped.
#[derive(Debug)]
pub struct PostReceiver {
    boxes: Arc<PostBoxes>,
    connection: Box<str>,
    post_box: Arc<PostBox>,
}

impl PostBoxes {
    /// Opens a box for `connection`. Frames need `key`, and have at most `frame_bytes_max` bytes.
    pub fn open(
        self: &Arc<Self>,
        connection: &str,
        key: SendKey,
        frame_bytes_max: usize,
    ) -> PostReceiver {
        let post_box = Arc::new(PostBox {
            key,
            frame_bytes_max: AtomicUsize::new(frame_bytes_max),
            state: Mutex::default(),
        });
        self.0.insert(connection.into(), post_box.clone());
        PostReceiver {
            boxes: self.clone(),
            connection: connection.into(),
            post_box,
        }
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` is that of `connection`; `None` if there is no such connection.
    pub fn check(&self, connection: &str, key: SendKey) -> Option<bool> {
        let post_box = self.0.get(connection)?;
        Some(post_box.key.is(key))
    }

    /// Puts a frame into the box of its connection.
    pub fn take(&self, post: PostedFrame<'_>) -> PostOutcome {
        let Some(post_box) = self.0.get(post.connection) else {
            return PostOutcome::Unknown;
        };
        if !post_box.key.is(post.key) {
            return PostOutcome::WrongKey;
        }
        post_box.put(post.text)
    }
}

impl PostBox {
    fn put(&self, text: &str) -> PostOutcome {
        if text.len() > self.frame_bytes_max.load(Ordering::Relaxed) {
            return PostOutcome::TooBig;
        }
        let mut state = self.state();
        if state.is_closed {
            return PostOutcome::Unknown;
        }
        let is_full = state.frames.len() >= FRAMES_MAX
            || !state.frames.is_empty() && state.bytes + text.len() > WAITING_BYTES_MAX;
        if is_full {
            return PostOutcome::Full;
        }
        state.bytes += text.len();
        state.frames.push_back(text.to_owned());
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        PostOutcome::Taken
    }

    fn state(&self) -> MutexGuard<'_, PostBoxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PostReceiver {
    /// The key for frames.
    pub fn key(&self) -> SendKey {
        self.post_box.key
    }

    /// Changes the largest frame that is taken.
    pub fn set_frame_bytes_max(&self, bytes: usize) {
        let max = &self.post_box.frame_bytes_max;
        max.store(bytes, Ordering::Relaxed);
    }

    /// The next frame. If there is none, the task is woken when one comes.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<String> {
        let mut state = self.post_box.state();
        let Some(frame) = state.frames.pop_front() else {
            let known = state.reader.as_ref();
            if !known.is_some_and(|reader| reader.will_wake(cx.waker())) {
                state.reader = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        state.bytes -= frame.len();
        if state.frames.is_empty() {
            // Frees the memory.
            state.frames = VecDeque::new();
        }
        Poll::Ready(frame)
    }

    /// Takes no more frames, and discards those that wait. Returns their number.
    pub fn close(&self) -> usize {
        let mut state = self.post_box.state();
        state.is_closed = true;
        state.bytes = 0;
        std::mem::take(&mut state.frames).len()
    }
}

impl Drop for PostReceiver {
    fn drop(&mut self) {
        self.close();
        self.boxes.0.remove(&*self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SendKey = SendKey::new([7; 16]);

    fn post(text: &str) -> PostedFrame<'_> {
        PostedFrame {
            connection: "c-1",
            key: KEY,
            text,
        }
    }

    fn next(receiver: &PostReceiver) -> Option<String> {
        match receiver.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        }
    }

    #[test]
    fn frames_come_in_order_and_only_with_the_key() {
        let boxes = Arc::<PostBoxes>::default();
        assert_eq!(boxes.take(post("early")), PostOutcome::Unknown);
        let receiver = boxes.open("c-1", KEY, 10);
        assert_eq!(boxes.take(post("one")), PostOutcome::Taken);
        assert_eq!(boxes.take(post("two")), PostOutcome::Taken);
        let guess = PostedFrame {
            key: SendKey::new([8; 16]),
            ..post("three")
        };
        assert_eq!(boxes.take(guess), PostOutcome::WrongKey);
        assert_eq!(boxes.take(post("eleven byte")), PostOutcome::TooBig);
        receiver.set_frame_bytes_max(11);
        assert_eq!(boxes.take(post("eleven byte")), PostOutcome::Taken);
        assert_eq!(next(&receiver).as_deref(), Some("one"));
        assert_eq!(next(&receiver).as_deref(), Some("two"));
        assert_eq!(next(&receiver).as_deref(), Some("eleven byte"));
        assert_eq!(next(&receiver), None);
        assert_eq!(boxes.check("c-1", KEY), Some(true));
        assert_eq!(boxes.check("c-1", guess.key), Some(false));
        assert_eq!(boxes.check("c-2", KEY), None);
    }

    #[test]
    fn a_box_is_bounded_in_frames_and_bytes_and_takes_a_single_frame_of_any_size() {
        let boxes = Arc::<PostBoxes>::default();
        let receiver = boxes.open("c-1", KEY, 1 << 20);
        let taken = (0..100).take_while(|_| boxes.take(post("x")) == PostOutcome::Taken);
        assert_eq!(taken.count(), FRAMES_MAX);
        assert_eq!(boxes.take(post("x")), PostOutcome::Full);
        while next(&receiver).is_some() {}
        let large = "x".repeat(1 << 20);
        assert_eq!(boxes.take(post(&large)), PostOutcome::Taken);
        assert_eq!(boxes.take(post("x")), PostOutcome::Full);
        assert_eq!(next(&receiver).map(|frame| frame.len()), Some(1 << 20));
        assert_eq!(boxes.take(post("x")), PostOutcome::Taken);
    }

    #[test]
    fn a_connection_that_ends_takes_nothing_more() {
        let boxes = Arc::<PostBoxes>::default();
        let receiver = boxes.open("c-1", KEY, 10);
        assert_eq!(boxes.take(post("waits")), PostOutcome::Taken);
        assert_eq!(receiver.close(), 1);
        assert_eq!(boxes.take(post("late")), PostOutcome::Unknown);
        assert_eq!((boxes.len(), next(&receiver)), (1, None));
        drop(receiver);
        assert!(boxes.is_empty());
    }
}

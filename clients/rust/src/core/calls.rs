//! Calls, and the messages that wait for the connection (section 8 of SPEC.md).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::link::Link;
use super::{Alarm, Core, Effect, Timer};
use crate::error::{Error, codes};
use crate::frames::{Ack, Answered, OutgoingFrame};
use crate::options::Offline;

/// How often a call with `once` is repeated after a retryable error of the server.
const RETRIES_MAX: u32 = 3;
/// The error for a repetition of a call that is being handled, or was until its node died.
const IN_PROGRESS: &str = "in_progress";
/// How long a call is repeated after its first `in_progress`.
const IN_PROGRESS_TIME: Duration = Duration::from_secs(15);
/// The longest wait after an `in_progress`.
const IN_PROGRESS_WAIT_MAX: Duration = Duration::from_secs(2);
/// The bytes that may wait for a slow socket, as a multiple of the queue.
const UNWRITTEN_FACTOR: usize = 16;

/// Who waits for an answer.
pub(super) enum Reply {
    Application(oneshot::Sender<Answered>),
    Leave(oneshot::Sender<Result<(), Error>>),
    /// The join of this room with this ID.
    Join {
        room: String,
        id: String,
    },
    Token,
    Nobody,
}

impl Reply {
    /// Whether the application gave up the call.
    fn is_abandoned(&self) -> bool {
        matches!(self, Self::Application(reply) if reply.is_closed())
    }
}

/// A frame with an ID.
struct Call {
    id: String,
    text: String,
    once: bool,
    retries: u32,
    /// Repetitions after `in_progress`, which are no `retries`.
    polls: u32,
    /// When these end.
    polls_end: Option<Instant>,
    /// Its place among the frames that were written.
    number: u64,
    /// Waits for the answer, or for the next try.
    alarm: Option<Alarm>,
    reply: Reply,
}

/// All calls of a client.
#[derive(Default)]
pub(super) struct Calls {
    /// Whether messages may go out: the rooms were joined again.
    flowing: bool,
    pending: HashMap<String, Call>,
    queue: VecDeque<Call>,
    queue_bytes: usize,
    /// Calls with `once` that a connection took with it. They come before the queue.
    again: VecDeque<Call>,
    /// Calls with `once` that wait for their next try.
    resting: HashMap<String, Call>,
    /// The number of frames, to keep their order.
    written: u64,
    /// The bytes that the socket has not taken yet.
    pub(super) unwritten: usize,
    /// Answers on their way.
    pub(super) answers: VecDeque<(Reply, Answered)>,
}

impl Calls {
    /// The number of messages that wait for the connection.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() + self.again.len()
    }

    fn finish(&mut self, call: Call, answer: Answered) {
        self.answers.push_back((call.reply, answer));
    }

    /// Takes the calls that wait for an answer, in the order in which they were written.
    fn take_pending(&mut self) -> Vec<Call> {
        let mut calls: Vec<_> = self.pending.drain().map(|(_, call)| call).collect();
        calls.sort_unstable_by_key(|call| call.number);
        calls
    }

    /// Forgets messages in the queue that the application gave up.
    fn prune(&mut self) {
        self.queue.retain(|call| !call.reply.is_abandoned());
        self.queue_bytes = self.queue.iter().map(|call| call.text.len()).sum();
    }
}

/// Returns an ID that no other client of the user has.
fn new_id() -> String {
    format!("{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..))
}

impl Core {
    /// Sends a message now, or when the connection and the rooms are there.
    pub(super) fn call(&mut self, frame: OutgoingFrame, reply: Reply) {
        let call = new_call(frame, reply);
        let size = call.text.len();
        if self.is_closed() {
            self.calls.finish(call, Err(Error::closed()));
        } else if let Some(error) = self.too_large(&call) {
            self.calls.finish(call, Err(error));
        } else if self.calls.flowing {
            if self.calls.unwritten + size
                > self
                    .options
                    .queue_bytes_max
                    .saturating_mul(UNWRITTEN_FACTOR)
            {
                let message = "the connection is too slow for so many messages";
                self.calls
                    .finish(call, Err(Error::new(codes::QUEUE_FULL, message)));
            } else {
                self.write(call);
            }
        } else if !self.is_up() && self.options.offline == Offline::Fail {
            let error = Error::new(codes::OFFLINE, "there is no connection");
            self.calls.finish(call, Err(error));
        } else {
            self.enqueue_call(call);
        }
    }

    fn enqueue_call(&mut self, call: Call) {
        self.calls.prune();
        let bytes = self.calls.queue_bytes + call.text.len();
        if self.calls.queue.len() >= self.options.queue_max || bytes > self.options.queue_bytes_max
        {
            let message = "too many messages wait for the connection";
            self.calls
                .finish(call, Err(Error::new(codes::QUEUE_FULL, message)));
        } else {
            self.calls.queue_bytes = bytes;
            self.calls.queue.push_back(call);
        }
    }

    /// Sends a frame about the connection itself, which waits for no other.
    pub(super) fn control(&mut self, frame: OutgoingFrame, reply: Reply) {
        let call = new_call(frame, reply);
        self.control_call(call);
    }

    /// Sends the join of a room. Returns its ID.
    pub(super) fn control_join(&mut self, frame: OutgoingFrame, room: &str) -> String {
        let mut call = new_call(frame, Reply::Nobody);
        let id = call.id.clone();
        call.reply = Reply::Join {
            room: room.to_owned(),
            id: id.clone(),
        };
        self.control_call(call);
        id
    }

    fn control_call(&mut self, call: Call) {
        if !self.is_up() {
            let error = Error::new(codes::CONNECTION_LOST, "there is no connection");
            self.calls.finish(call, Err(error));
        } else if let Some(error) = self.too_large(&call) {
            self.calls.finish(call, Err(error));
        } else {
            self.write(call);
        }
    }

    fn too_large(&self, call: &Call) -> Option<Error> {
        let Link::Up(connection) = &self.link else {
            return None;
        };
        let (size, max) = (call.text.len(), connection.frame_bytes_max);
        (max > 0 && size > max).then(|| {
            let message = format!("the frame has {size} bytes, and the server takes {max}");
            Error::new(codes::TOO_LARGE, message)
        })
    }

    fn write(&mut self, mut call: Call) {
        self.calls.written += 1;
        call.number = self.calls.written;
        call.alarm = Some(self.after(self.options.answer_timeout, Timer::Answer(call.id.clone())));
        let text = if call.once {
            call.text.clone()
        } else {
            // It is never sent again.
            std::mem::take(&mut call.text)
        };
        self.effects.push_back(Effect::Write(text));
        self.calls.pending.insert(call.id.clone(), call);
    }

    pub(super) fn call_expired(&mut self, id: &str) {
        if let Some(call) = self.calls.pending.remove(id) {
            let message = format!("no answer came within {:?}", self.options.answer_timeout);
            self.calls
                .finish(call, Err(Error::new(codes::TIMEOUT, message)));
        }
    }

    pub(super) fn answered(&mut self, ack: Ack) {
        if let Some(mut call) = self.calls.pending.remove(&ack.id) {
            self.timers.cancel(&mut call.alarm);
            self.calls.finish(call, Ok(ack));
        }
    }

    pub(super) fn call_refused(&mut self, id: &str, error: Error) {
        let Some(mut call) = self.calls.pending.remove(id) else {
            return;
        };
        self.timers.cancel(&mut call.alarm);
        let wait = if call.once && error.retryable {
            self.wait_after(&mut call, &error.code)
        } else {
            None
        };
        if let Some(wait) = wait {
            call.alarm = Some(self.after(wait, Timer::Retry(call.id.clone())));
            self.calls.resting.insert(call.id.clone(), call);
        } else {
            self.calls.finish(call, Err(error));
        }
    }

    /// Returns the wait before the next try of a call that was refused for now, if there is one.
    fn wait_after(&mut self, call: &mut Call, code: &str) -> Option<Duration> {
        let (first, longest) = (self.options.backoff_min, self.options.backoff_max);
        if code != IN_PROGRESS {
            let mut backoff = Backoff::new(first, longest).at(call.retries);
            call.retries += 1;
            return (call.retries <= RETRIES_MAX).then(|| backoff.next(&mut self.random));
        }
        let now = self.now.instant;
        let end = *call.polls_end.get_or_insert(now + IN_PROGRESS_TIME);
        let mut backoff = Backoff::new(first, longest.min(IN_PROGRESS_WAIT_MAX)).at(call.polls);
        call.polls += 1;
        (now < end).then(|| backoff.next(&mut self.random).min(end - now))
    }

    /// The wait before the next try of a call is over.
    pub(super) fn send_again(&mut self, id: &str) {
        let Some(mut call) = self.calls.resting.remove(id) else {
            return;
        };
        call.alarm = None;
        if self.calls.flowing {
            self.write(call);
        } else {
            self.calls.again.push_back(call);
        }
    }

    /// Sends all messages that wait.
    pub(super) fn send_waiting(&mut self) {
        if self.calls.flowing {
            return;
        }
        self.calls.flowing = true;
        self.calls.queue_bytes = 0;
        let mut waiting = std::mem::take(&mut self.calls.again);
        waiting.append(&mut self.calls.queue);
        for call in waiting {
            if call.reply.is_abandoned() {
                continue;
            }
            match self.too_large(&call) {
                Some(error) => self.calls.finish(call, Err(error)),
                None => self.write(call),
            }
        }
    }

    /// The connection is gone, and with it the answers.
    pub(super) fn calls_lost(&mut self) {
        self.calls.flowing = false;
        let mut kept = VecDeque::new();
        for mut call in self.calls.take_pending() {
            self.timers.cancel(&mut call.alarm);
            if call.once {
                kept.push_back(call);
            } else {
                let message = "the connection was lost before the answer came";
                let error = Error::new(codes::CONNECTION_LOST, message);
                self.calls.finish(call, Err(error));
            }
        }
        kept.append(&mut self.calls.again);
        self.calls.again = kept;
    }

    /// The client is closed.
    pub(super) fn fail_calls(&mut self) {
        self.calls.flowing = false;
        self.calls.queue_bytes = 0;
        let mut waiting = VecDeque::from(self.calls.take_pending());
        waiting.append(&mut self.calls.again);
        waiting.append(&mut self.calls.queue);
        waiting.extend(self.calls.resting.drain().map(|(_, call)| call));
        for call in waiting {
            self.calls.finish(call, Err(Error::closed()));
        }
    }
}

fn new_call(mut frame: OutgoingFrame, reply: Reply) -> Call {
    frame.id = new_id();
    Call {
        text: frame.text(),
        once: frame.once,
        id: frame.id,
        retries: 0,
        polls: 0,
        polls_end: None,
        number: 0,
        alarm: None,
        reply,
    }
}

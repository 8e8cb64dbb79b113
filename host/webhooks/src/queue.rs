//! The queues of events, one for each webhook.

mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

pub use self::memory::MemoryQueue;
#[cfg(feature = "redis")]
pub use self::redis::RedisQueue;

/// How long a sender has the right to send without renewing it.
const CLAIM_TIME: Duration = Duration::from_secs(15);

/// The most bytes of the events of a batch, unless its first event is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The queue did not carry out a call, or it is unknown whether it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QueueUnavailable(pub Arc<str>);

/// A queue, and its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueAddress {
    /// The name of the queue: hexadecimal digits.
    pub queue: Arc<str>,
    /// The most events in it.
    pub length_max: usize,
}

/// An event on its way to queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedEvent {
    /// Its JSON text.
    pub text: String,
    /// The queues that get it.
    pub queues: Vec<QueueAddress>,
    /// The change that it reports, if all nodes together report it once.
    pub change: Option<OccupancyChange>,
}

/// A change of something that is reported once by all nodes together, such as the first member of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OccupancyChange {
    /// It is there, and was reported as away or never.
    Came(String),
    /// It is away, and was reported as there.
    Went(String),
}

/// The result of [`EventQueue::push`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Whether each event was added: one whose change was reported before is not.
    pub added: Vec<bool>,
    /// The queues of the events.
    pub queues: Vec<TrimmedQueue>,
}

/// A queue after events were added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrimmedQueue {
    /// The name of the queue.
    pub queue: Arc<str>,
    /// The number of its oldest events that were dropped.
    pub dropped: usize,
    /// The number of events in it.
    pub length: usize,
}

/// A sender's wish to send the next events of a queue.
#[derive(Clone, Copy, Debug)]
pub struct BatchClaim<'a> {
    /// The name of the queue.
    pub queue: &'a str,
    /// The sender, unique among all nodes.
    pub sender: &'a str,
    /// The most events of a batch.
    pub batch_max: usize,
    /// How long an event may wait for others.
    pub batch_time: Duration,
    /// The ID of the batch, if it is a new one.
    pub batch_id: &'a str,
}

/// The state of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// The number of events in it.
    pub length: usize,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
    /// The next step of the sender.
    pub next: NextEvents,
}

/// The next step of a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextEvents {
    /// Wait for events: there are none.
    None,
    /// Wait: another sender sends, and has the right to for this time.
    OfAnother(Duration),
    /// Wait for this time, because more events may come that go together.
    Later(Duration),
    /// Send these, and call [`EventQueue::finish`]. Until then no other sender sends, if [`EventQueue::renew`] is called often
    /// enough.
    Batch(EventBatch),
}

/// Events that are sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBatch {
    /// The ID, which stays the same if the batch is sent again, by another node too.
    pub id: String,
    /// The JSON texts of the events.
    pub events: Vec<String>,
}

/// A part of what was reported as there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedPage {
    /// The names.
    pub names: Vec<String>,
    /// The cursor of the next part; 0 if this is the last.
    pub next: u64,
}

/// Queues of events. One sender at a time takes events out of a queue, in the order in which they were added, and each stays
/// there until it was sent. `host/tests/it/webhook_queues.rs` is the test suite for every implementation.
pub trait EventQueue: Send + Sync {
    /// Adds `events` to their queues, all or none, and drops the oldest events of a queue that is too long.
    ///
    /// # Errors
    /// [`QueueUnavailable`] if they were not added, or if that is unknown.
    fn push<'a>(
        &'a self,
        events: &'a [QueuedEvent],
    ) -> BoxFuture<'a, Result<Pushed, QueueUnavailable>>;

    /// Returns the next events of a queue, if no other sender has the right to send. A batch that was not finished is
    /// returned again, except for events that were dropped meanwhile.
    ///
    /// # Errors
    /// [`QueueUnavailable`] if that is unknown.
    fn claim<'a>(
        &'a self,
        claim: BatchClaim<'a>,
    ) -> BoxFuture<'a, Result<QueueState, QueueUnavailable>>;

    /// Extends the right of `sender` to send by 15 s from now. Returns `false` if it has none.
    ///
    /// # Errors
    /// [`QueueUnavailable`] if that is unknown.
    fn renew<'a>(
        &'a self,
        queue: &'a str,
        sender: &'a str,
    ) -> BoxFuture<'a, Result<bool, QueueUnavailable>>;

    /// Removes the events of a batch that was sent. Does nothing if it is not the current batch any more.
    ///
    /// # Errors
    /// [`QueueUnavailable`] if they were not removed, or if that is unknown.
    fn finish<'a>(
        &'a self,
        queue: &'a str,
        batch_id: &'a str,
    ) -> BoxFuture<'a, Result<(), QueueUnavailable>>;

    /// Gives up the right of `sender` to send.
    ///
    /// # Errors
    /// [`QueueUnavailable`] if that is unknown.
    fn release<'a>(
        &'a self,
        queue: &'a str,
        sender: &'a str,
    ) -> BoxFuture<'a, Result<(), QueueUnavailable>>;

    /// The names that were reported as there, in parts; the first one has the cursor 0. A name that is there all the time is
    /// in some part.
    ///
    /// # Errors
    /// [`QueueUnavailable`] if they cannot be read.
    fn reported(&self, cursor: u64) -> BoxFuture<'_, Result<ReportedPage, QueueUnavailable>>;

    /// Whether events wait for the next process, or for other nodes, when this process ends.
    fn outlives_process(&self) -> bool;

    /// Removes the events of a queue that nobody else can send, and returns how many there were.
    fn discard(&self, queue: &str) -> usize;
}

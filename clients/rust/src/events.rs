//! What the application sees: events, in the order in which the frames arrived.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::error::Error;

/// The state of a client, which begins in `Disconnected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not connected yet, or waiting for the next attempt.
    Disconnected,
    /// An attempt is under way.
    Connecting,
    /// The server has welcomed the client.
    Connected,
    /// The application or the server ended the client.
    Closed,
}

/// A new state of a client, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateChange {
    /// The new state.
    pub state: State,
    /// The close code of the server.
    pub code: Option<u16>,
    /// The HTTP status of a refusal.
    pub status: Option<u16>,
    /// The reason for people; empty if there is none.
    pub reason: String,
    /// The time until the next attempt, in the state `Disconnected`.
    pub retry_in: Option<Duration>,
    /// The two ends of the connection, in the state `Connected`.
    pub session: Option<Session>,
}

/// The two ends of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// The ID of the user.
    pub user: String,
    /// The ID of the node of the server.
    pub node: String,
    /// The way in which frames travel.
    pub transport: Transport,
}

/// The way in which frames travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// A WebSocket.
    #[default]
    WebSocket,
    /// Server-sent events, the fallback for networks that block WebSockets.
    Sse,
}

/// A message to the user, to a room, or to everyone.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// The event type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The JSON text of the payload.
    #[serde(default = "null")]
    pub payload: Box<RawValue>,
    /// The user who sent it; empty for the platform.
    #[serde(rename = "senderId", default)]
    pub sender: String,
    /// The user to whom it was sent; empty for a message to a room or to everyone.
    #[serde(rename = "receiverID", default)]
    pub receiver: String,
    /// When the server received it, in RFC 3339 with microseconds.
    #[serde(default)]
    pub timestamp: String,
    /// The room to which it was sent.
    pub room: Option<String>,
    /// The ID that the server gave it. None if the sender asked for no answer.
    #[serde(rename = "messageId")]
    pub message_id: Option<String>,
    /// Its number in the history of the room or of the user, if there is one.
    pub offset: Option<u64>,
}

impl Message {
    /// Reads the payload.
    ///
    /// # Errors
    /// Fails if the payload does not have this form.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.payload.get())
    }
}

pub(crate) fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// The server's answer to a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// `delivered`, `offline`, `kept` or `handled`; see docs/protocol.md.
    pub status: String,
    /// The ID that the server gave the message.
    pub message_id: Option<String>,
    /// The JSON text of the data with which a plugin answered.
    pub data: Option<Box<RawValue>>,
    /// Whether the server had handled the call before and repeats its answer.
    pub duplicate: bool,
}

/// Messages of a room's history.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The messages, oldest first.
    #[serde(default)]
    pub messages: Vec<Message>,
    /// Whether older messages are kept: ask again, with the smallest offset as `before`.
    #[serde(rename = "hasOlder", default)]
    pub has_older: bool,
}

/// A user in a room.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// The user ID.
    #[serde(rename = "userId")]
    pub user: String,
    /// The number of the user's connections in the room when they were last reported.
    #[serde(default)]
    pub connections: u64,
    /// The JSON text of the claim `info` of the user's token.
    pub info: Option<Box<RawValue>>,
}

/// The users in a room, as far as they are known.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Presence {
    /// The number of users; 0 before the first report.
    pub total: u64,
    /// The users by their ID. None if the server does not list them.
    pub members: Option<Arc<BTreeMap<String, Member>>>,
}

/// An event of a client. Events come in the order in which the frames arrived.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The state has changed.
    State(StateChange),
    /// A message arrived.
    Message(Message),
    /// The client was away or too slow, and messages were or were not recovered. It comes before any later message.
    Recovery {
        /// The room; None for the messages to the user.
        room: Option<String>,
        /// Whether nothing was missed. If not, reload your state.
        recovered: bool,
        /// Why they cannot be delivered, such as `epoch`, `expired`, `too_many`, or `no_history`.
        reason: Option<String>,
    },
    /// The users of a room have changed.
    Presence {
        /// The room.
        room: String,
        /// All users, merged.
        presence: Presence,
    },
    /// The server ended a membership, or refused it, for good. It does not follow `leave`.
    Left {
        /// The room.
        room: String,
        /// Its code is the one of the refusal, the reason of the server, or `removed`.
        error: Error,
    },
    /// An error that belongs to no call.
    Error(Error),
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    reader: Option<Waker>,
    no_reader: bool,
    no_writer: bool,
}

struct Queue {
    max: usize,
    waiting: Mutex<Waiting>,
    taken: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the queue of events at which the client puts them in.
pub(crate) struct Outlet(Arc<Queue>);

/// The events of a client, a [`Stream`]. While more than [`Options::events_max`](crate::Options::events_max) wait to be
/// read, the client reads nothing from its connection. Drop this if you need no events.
///
/// It ends when every [`Client`](crate::Client) is dropped.
pub struct Events(Arc<Queue>);

/// Returns both ends of a queue for `max` events.
pub(crate) fn queue(max: usize) -> (Outlet, Events) {
    let queue = Arc::new(Queue {
        max,
        waiting: Mutex::default(),
        taken: Notify::new(),
    });
    (Outlet(Arc::clone(&queue)), Events(queue))
}

impl Outlet {
    pub(crate) fn put(&self, event: Event) {
        let mut waiting = self.0.lock();
        if waiting.no_reader {
            return;
        }
        // The connection is not read while the queue is full. Only reports of attempts and errors still come, and the newest
        // of them is enough.
        let report =
            |event: Option<&Event>| matches!(event, Some(Event::State(_) | Event::Error(_)));
        if waiting.events.len() >= self.0.max.saturating_mul(2)
            && report(waiting.events.back())
            && report(Some(&event))
        {
            waiting.events.pop_back();
        }
        waiting.events.push_back(event);
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }

    /// Forgets all events that wait.
    pub(crate) fn clear(&self) {
        self.0.lock().events.clear();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.lock().events.len() >= self.0.max
    }

    /// Waits until the application has taken an event of a full queue.
    pub(crate) async fn taken(&self) {
        self.0.taken.notified().await;
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.no_writer = true;
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

impl Events {
    /// Returns the next event. None if every [`Client`](crate::Client) was dropped. Dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<Event> {
        self.next().await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut waiting = self.0.lock();
        if let Some(event) = waiting.events.pop_front() {
            if waiting.events.len() < self.0.max {
                self.0.taken.notify_one();
            }
            return Poll::Ready(Some(event));
        }
        if waiting.no_writer {
            return Poll::Ready(None);
        }
        waiting.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.no_reader = true;
        waiting.events.clear();
        self.0.taken.notify_one();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

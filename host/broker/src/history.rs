//! The last messages of a room or to a user, kept so that a client that was away can catch up.
//!
//! The messages of a history are numbered from 1 in each epoch. A history remembers its [`Position`] longer than its messages,
//! so a client that asks for too old a message learns that it missed some.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use signalbox_protocol::{Epoch, Frame, Position};

use crate::Target;

/// The shortest time for which a history without new messages remembers its position.
const POSITION_KEPT_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// How much longer the position is remembered than the messages.
const POSITION_KEPT_FACTOR: u32 = 10;

/// The owner of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HistoryName<'a> {
    /// A room: its history contains the messages to the room.
    Room(&'a str),
    /// A user: their history contains the messages to them alone.
    User(&'a str),
}

/// A [`HistoryName`] that can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnedHistoryName {
    /// See [`HistoryName::Room`].
    Room(Arc<str>),
    /// See [`HistoryName::User`].
    User(Arc<str>),
}

impl OwnedHistoryName {
    /// The name.
    pub fn borrowed(&self) -> HistoryName<'_> {
        match self {
            Self::Room(room) => HistoryName::Room(room),
            Self::User(user) => HistoryName::User(user),
        }
    }
}

impl From<HistoryName<'_>> for OwnedHistoryName {
    fn from(name: HistoryName<'_>) -> Self {
        match name {
            HistoryName::Room(room) => Self::Room(room.into()),
            HistoryName::User(user) => Self::User(user.into()),
        }
    }
}

impl<'a> From<HistoryName<'a>> for Target<'a> {
    fn from(name: HistoryName<'a>) -> Self {
        match name {
            HistoryName::Room(room) => Self::Room(room),
            HistoryName::User(user) => Self::User(user),
        }
    }
}

impl fmt::Display for HistoryName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(room) => write!(f, "room {room}"),
            Self::User(user) => write!(f, "user {user}"),
        }
    }
}

/// How much of a history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The most messages.
    pub size: usize,
    /// How long all of them are kept after the last one.
    pub time: Duration,
}

impl Retention {
    /// How long the position is remembered after the last message or reader.
    pub fn position_time(&self) -> Duration {
        POSITION_KEPT_MIN.max(self.time.saturating_mul(POSITION_KEPT_FACTOR))
    }
}

/// Makes a message be appended once to a history, although its sender may repeat it because it got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendOnce<'a> {
    /// The name of the message, the same for its repetitions and for no other message: at most 64 ASCII letters, digits and `-`.
    pub id: &'a str,
    /// How long the history remembers the name, from the last time that the message was sent.
    pub time: Duration,
}

/// Whether a message was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendKind {
    /// It was.
    New,
    /// It had been before, under the same [`AppendOnce::id`]. This is the message that is in the history, without its number;
    /// `None` if the history no longer contains it.
    Repetition(Option<Frame>),
}

/// The result of appending a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Whether it was appended, or had been before.
    pub kind: AppendKind,
    /// The epoch of the history, and the number of the message.
    pub position: Position,
    /// The connections on this node that took it.
    pub connections: usize,
    /// The number of other nodes that it was published to.
    pub nodes: usize,
}

/// A choice of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only messages with a greater number.
    pub after: u64,
    /// Only messages with a smaller number; `None`: no limit.
    pub before: Option<u64>,
    /// The most messages; the newest ones are taken.
    pub limit: usize,
}

impl HistoryQuery {
    /// Only the position is of interest.
    pub const POSITION: Self = Self {
        after: 0,
        before: None,
        limit: 1,
    };
}

/// A message of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMessage {
    /// Its number.
    pub offset: u64,
    /// The frame for clients, with the number.
    pub frame: Frame,
}

/// The answer to a [`HistoryQuery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// The epoch, and the number of the last message when the read began. `messages` may contain later ones.
    pub position: Position,
    /// The messages, oldest first. Numbers may be missing at the beginning, because old messages are discarded, and never in
    /// between.
    pub messages: Vec<KeptMessage>,
}

/// A random epoch. The keys of a [`RandomState`] come from the operating system.
pub(crate) fn new_epoch() -> Epoch {
    Epoch::random(RandomState::new().hash_one(()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn epochs_differ() {
        let epochs: HashSet<Epoch> = (0..1_000).map(|_| new_epoch()).collect();
        assert_eq!(epochs.len(), 1_000);
    }

    #[test]
    fn a_position_is_remembered_for_a_day_and_ten_times_as_long_as_the_messages() {
        let time = |seconds| Retention {
            size: 1,
            time: Duration::from_secs(seconds),
        };
        assert_eq!(time(1).position_time(), Duration::from_secs(86_400));
        assert_eq!(time(86_400).position_time(), Duration::from_secs(864_000));
    }
}

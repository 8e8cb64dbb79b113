//! The members and the history of rooms, as plugins read them.
//!
//! The runtime knows no rooms: the server implements [`RoomState`] on its router.

use futures_util::{FutureExt, future::BoxFuture};

/// Why the state of a room cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomStateError {
    /// The rule of the room does not switch on what was asked for.
    #[error("the rule of the room does not switch this on")]
    SwitchedOff,
    /// The broker, or another node with members, does not answer.
    #[error("the state of the room cannot be read now")]
    Unavailable,
}

/// A user in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomMember {
    /// The user's ID.
    pub user: String,
    /// The user's connections in the room, at least 1.
    pub connections: u32,
    /// The claim `info` of the user's token, as JSON text.
    pub info: Option<String>,
}

/// A message in the history of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomMessage {
    /// Its number in the room.
    pub offset: u64,
    /// Its event type.
    pub event_type: String,
    /// The ID of the sending user; empty if the platform sent it.
    pub sender: String,
    /// JSON text.
    pub payload: String,
    /// When it was sent, in milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp_ms: u64,
}

/// Reads the state of rooms in the whole cluster.
///
/// `room` is a valid name of any room. The caller stops waiting when the time of its call is over.
pub trait RoomState: Send + Sync {
    /// The number of connections in `room`.
    fn count<'a>(&'a self, room: &'a str) -> BoxFuture<'a, Result<u32, RoomStateError>>;

    /// The users in `room`, in the order of their IDs, as many as the configuration allows to list.
    fn members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Vec<RoomMember>, RoomStateError>>;

    /// The last messages of `room` with a smaller number than `before`, oldest first: at most `limit`, which is at least 1,
    /// and as many as the configuration allows to read.
    fn history<'a>(
        &'a self,
        room: &'a str,
        before: Option<u64>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<RoomMessage>, RoomStateError>>;
}

/// The rooms of a host without connections.
pub(super) struct NoRooms;

impl RoomState for NoRooms {
    fn count<'a>(&'a self, _room: &'a str) -> BoxFuture<'a, Result<u32, RoomStateError>> {
        async { Ok(0) }.boxed()
    }

    fn members<'a>(
        &'a self,
        _room: &'a str,
    ) -> BoxFuture<'a, Result<Vec<RoomMember>, RoomStateError>> {
        async { Err(RoomStateError::SwitchedOff) }.boxed()
    }

    fn history<'a>(
        &'a self,
        _room: &'a str,
        _before: Option<u64>,
        _limit: u32,
    ) -> BoxFuture<'a, Result<Vec<RoomMessage>, RoomStateError>> {
        async { Err(RoomStateError::SwitchedOff) }.boxed()
    }
}

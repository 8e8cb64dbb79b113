//! The receivers of a message.

use super::{RoomName, UserId};

/// The receivers of a message, by the sender's or a plugin's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// The connection that the message came from, or that the call of a plugin is about.
    Sender,
    /// Every connection of one user.
    User(UserId<'a>),
    /// Every member of one room.
    Room(RoomName<'a>),
    /// Every connection.
    Everyone,
}

impl Destination<'_> {
    /// The room, if it is one.
    pub fn room(&self) -> Option<&str> {
        match self {
            Self::Room(room) => Some(room),
            _ => None,
        }
    }
}

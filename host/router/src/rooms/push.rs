//! How frames get to the members of a room.

use std::sync::Arc;

use signalbox_protocol::{Frame, Position, RecoveryFailure, RoomPosition, outbound};

use super::gate::HeldMessage;
use crate::Connection;

/// How frames get to members.
#[derive(Clone, Copy)]
pub(crate) struct Push<'p> {
    /// Pushes a message, and returns whether it was taken.
    pub(crate) message: &'p dyn Fn(&Arc<Connection>, Frame) -> bool,
    /// Pushes a frame of the server itself.
    pub(crate) notice: &'p dyn Fn(&Arc<Connection>, Frame),
}

impl Push<'_> {
    /// Pushes a message to all of `list`, and returns how many took it.
    pub(super) fn to_all(self, list: &[Arc<Connection>], frame: &Frame) -> usize {
        list.iter()
            .filter(|connection| (self.message)(connection, frame.clone()))
            .count()
    }

    /// Pushes messages that waited at a gate, and returns how many were taken.
    pub(super) fn held_to(self, connection: &Arc<Connection>, held: Vec<HeldMessage>) -> usize {
        held.into_iter()
            .filter(|held| (self.message)(connection, held.frame.clone()))
            .count()
    }

    /// Tells a member that it missed messages before `position`.
    pub(super) fn tell_missed(
        self,
        connection: &Arc<Connection>,
        room: &str,
        position: &Position,
        reason: RecoveryFailure,
    ) {
        if connection.v1() {
            let at = RoomPosition {
                position: position.clone(),
                recovery: Some(Err(reason)),
            };
            (self.notice)(connection, outbound::joined(room, Some(&at)));
        }
    }
}

//! How frames get to the members of a room.

use std::{cell::OnceCell, sync::Arc};

use signalbox_broker::KeptMessage;
use signalbox_protocol::Frame;

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

    /// Pushes a message of a user's history to the user's connections in `list`, and returns how many took it. Only clients of
    /// `signalbox.v1` know the number.
    pub(crate) fn to_devices(self, list: &[Arc<Connection>], kept: &KeptMessage) -> usize {
        let plain = OnceCell::new();
        let without_offset = || plain.get_or_init(|| kept.frame.without_offset(kept.offset));
        let frame_for = |connection: &Connection| match connection.v1() {
            true => kept.frame.clone(),
            false => without_offset().clone(),
        };
        list.iter()
            .filter(|connection| (self.message)(connection, frame_for(connection)))
            .count()
    }

    /// Pushes messages that waited at a gate, and returns how many were taken.
    pub(super) fn held_to(self, connection: &Arc<Connection>, held: Vec<HeldMessage>) -> usize {
        held.into_iter()
            .filter(|held| (self.message)(connection, held.frame.clone()))
            .count()
    }

    /// Tells a member, by `frame`, that it missed messages.
    pub(super) fn tell_missed(self, connection: &Arc<Connection>, frame: Frame) {
        if connection.v1() {
            (self.notice)(connection, frame);
        }
    }
}

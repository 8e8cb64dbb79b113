//! One room of this node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use signalbox_broker::Retention;

use super::sequence::Sequence;
use crate::Connection;

/// The members of a room on this node.
#[derive(Default)]
pub(super) struct RoomEntry {
    pub(super) members: HashMap<u64, Member>,
    /// The members that are not gated, made by the first message after a change, so that a message to a large room does not
    /// lock the room while it is sent.
    pub(super) list: Option<Arc<[Arc<Connection>]>>,
    /// `Some` if the room has a history.
    pub(super) sequence: Option<Arc<Mutex<Sequence>>>,
}

/// A member of a room.
pub(super) struct Member {
    pub(super) connection: Arc<Connection>,
    /// Whether its messages wait at a gate.
    pub(super) is_gated: bool,
}

impl RoomEntry {
    pub(super) fn insert(&mut self, connection: &Arc<Connection>, is_gated: bool) {
        let member = Member {
            connection: connection.clone(),
            is_gated,
        };
        self.members.insert(connection.number(), member);
    }

    pub(super) fn ungate(&mut self, number: u64) {
        if let Some(member) = self.members.get_mut(&number) {
            member.is_gated = false;
            self.list = None;
        }
    }

    /// The order of the room's history, which is kept from now on.
    pub(super) fn sequence(&mut self, retention: Retention) -> Arc<Mutex<Sequence>> {
        let new = || Arc::new(Mutex::new(Sequence::new(retention)));
        self.sequence.get_or_insert_with(new).clone()
    }
}

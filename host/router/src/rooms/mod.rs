//! The rooms of this node, their members, and the order of messages in rooms with a history.
//!
//! A message without a number goes to all members at once. Messages of a history pass the room's [`Sequence`], whose lock is
//! held while they are pushed, so all members get them in the same order. A member that is catching up is *gated*: its
//! messages wait at a [`CatchUpGate`](gate::CatchUpGate) until it has the old ones.
//!
//! Locks are taken in this order: the sequence of a room, its entry in the map, an outbox.

mod catching_up;
mod entry;
mod gate;
mod push;
mod sequence;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use signalbox_broker::{HistoryPage, KeptMessage, Retention};
use signalbox_protocol::{Frame, Position, RecoveryFailure, RoomPosition, outbound};

pub(crate) use self::push::Push;
pub(crate) use self::sequence::{Comparison, KeptArrival};
use self::{
    entry::{Member, RoomEntry},
    sequence::Sequence,
};
use super::Connection;

/// The rooms that have members on this node.
#[derive(Default)]
pub(crate) struct RoomTable {
    kind: RoomKind,
    rooms: DashMap<Arc<str>, RoomEntry>,
}

/// How connections become members of the rooms of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RoomKind {
    /// They join. Each knows its rooms.
    #[default]
    Joined,
    /// The room has the name of a user, and all connections of the user are members. Its history is that of the user.
    OfUser,
}

/// The state of a room when a comparison with its history begins.
#[derive(Clone, Debug)]
pub(crate) struct ComparisonStart {
    /// The last message that was delivered.
    delivered: Position,
    /// The history must be read after this number.
    pub(crate) after: u64,
    pub(crate) retention: Retention,
    /// Whether messages wait for earlier ones.
    pub(crate) is_waiting: bool,
}

/// The part of its history that a room has delivered.
#[derive(Clone, Debug)]
pub(crate) struct KnownPosition {
    /// The last message.
    pub(crate) delivered: Position,
    /// Whether that was within the given time.
    pub(crate) is_busy: bool,
    /// Whether the history would forget its position unless it is read soon.
    pub(crate) is_fading: bool,
}

/// The result of giving a message to a room with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptDelivery {
    /// The members that took it, or will get it in its turn.
    pub(crate) members: usize,
    /// The number of messages that members took now, of this and earlier ones.
    pub(crate) delivered: usize,
    /// `None` if the room has no history here.
    pub(crate) arrival: Option<KeptArrival>,
}

/// The outcome of opening a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GateOutcome {
    /// Live messages follow from now on.
    Open,
    /// More live messages came meanwhile than may wait; they are lost to this member.
    Over,
    /// It is not a member any more.
    Gone,
}

impl RoomTable {
    /// A table of rooms of this kind.
    pub(crate) fn new(kind: RoomKind) -> Self {
        Self {
            kind,
            rooms: DashMap::new(),
        }
    }

    pub(crate) fn contains(&self, room: &str) -> bool {
        self.rooms.contains_key(room)
    }

    /// The rooms that have members.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.rooms.iter().map(|entry| entry.key().clone()).collect()
    }

    /// Makes `connection` a member. Returns `false` if it is one already, or gone.
    pub(crate) fn join(&self, connection: &Arc<Connection>, room: &str) -> bool {
        let name: Arc<str> = room.into();
        let mut entry = self.rooms.entry(name.clone()).or_default();
        if self.note_joined(connection, name, &entry) != Some(true) {
            drop(entry);
            self.rooms
                .remove_if(room, |_, entry| entry.members.is_empty());
            return false;
        }
        entry.list = None;
        entry.insert(connection, false);
        true
    }

    /// Notes that `connection` becomes a member of the room `name`. Returns whether it was none before; `None` if it is gone.
    ///
    /// Must be called under the room's lock: a connection that closes meanwhile waits for the lock, and removes itself again.
    fn note_joined(
        &self,
        connection: &Connection,
        name: Arc<str>,
        entry: &RoomEntry,
    ) -> Option<bool> {
        let is_member = entry.members.contains_key(&connection.number());
        match self.kind {
            RoomKind::Joined => {
                let is_new = connection.note_joined(name);
                (is_new || is_member).then_some(is_new)
            }
            RoomKind::OfUser => (!connection.is_gone()).then_some(!is_member),
        }
    }

    /// Keeps the order of the history of `room` from now on, if it has members here.
    pub(crate) fn follow(&self, room: &str, retention: Retention) {
        // Usually the order is kept already, and reading locks nobody out.
        let is_missing = |entry: &RoomEntry| entry.sequence.is_none();
        if self.rooms.get(room).is_some_and(|entry| is_missing(&entry))
            && let Some(mut entry) = self.rooms.get_mut(room)
        {
            entry.sequence(retention);
        }
    }

    /// The connections in each of the rooms that are `wanted`.
    pub(crate) fn connections(
        &self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Vec<(Arc<str>, Vec<Arc<Connection>>)> {
        let wanted = self.rooms.iter().filter(|entry| is_wanted(entry.key()));
        let rooms = wanted.map(|entry| {
            let members = entry.members.values();
            let connections = members.map(|member| member.connection.clone());
            (entry.key().clone(), connections.collect())
        });
        rooms.collect()
    }

    /// Removes a member from `room`.
    pub(crate) fn remove(&self, connection: &Connection, room: &str) {
        let Entry::Occupied(mut entry) = self.rooms.entry(room.into()) else {
            return;
        };
        let number = connection.number();
        let room = entry.get_mut();
        room.list = None;
        let was_gated = room
            .members
            .remove(&number)
            .is_some_and(|member| member.is_gated);
        let sequence = room.sequence.clone().filter(|_| was_gated);
        if room.members.is_empty() {
            entry.remove();
        } else {
            drop(entry);
        }
        if let Some(sequence) = sequence {
            lock(&sequence).gates.remove(&number);
        }
    }

    /// Pushes a message that is not part of a history to all members, and returns how many took it.
    pub(crate) fn deliver(&self, room: &str, frame: &Frame, push: Push<'_>) -> usize {
        let Some((list, has_gates)) = self.members(room) else {
            return 0;
        };
        if !has_gates {
            return push.to_all(&list, frame);
        }
        let Some(sequence) = self.sequence(room) else {
            return 0;
        };
        let mut sequence = lock(&sequence);
        let mut gated = 0;
        for gate in sequence.gates.values_mut() {
            if gate.caught_up_to().is_none() {
                gate.hold(None, frame);
                gated += 1;
            } else {
                gated += usize::from((push.message)(gate.connection(), frame.clone()));
            }
        }
        // Read again under the lock: a gate may have been opened meanwhile.
        let open = self.members(room);
        gated + open.map_or(0, |(list, _)| push.to_all(&list, frame))
    }

    /// Takes message `at.offset` of the history of `room` in, and pushes all that are due.
    pub(crate) fn deliver_kept(
        &self,
        room: &str,
        at: &Position,
        frame: &Frame,
        push: Push<'_>,
    ) -> KeptDelivery {
        let Some(sequence) = self.sequence(room) else {
            let kept = KeptMessage {
                offset: at.offset,
                frame: frame.clone(),
            };
            let taken = match self.kind {
                RoomKind::Joined => self.deliver(room, frame, push),
                RoomKind::OfUser => self.push_to_members(room, &kept, push),
            };
            return KeptDelivery {
                members: taken,
                delivered: taken,
                arrival: None,
            };
        };
        let mut sequence = lock(&sequence);
        let arrival = sequence.take(at, frame);
        let delivered = self.push_due(room, &mut sequence, push);
        KeptDelivery {
            members: self.takers(room),
            delivered,
            arrival: Some(arrival),
        }
    }

    /// Sets the position of `room` after its history was read for the first time. Returns the last message that the room
    /// has delivered, and the number of deliveries.
    pub(crate) fn begin_after(
        &self,
        room: &str,
        position: &Position,
        push: Push<'_>,
    ) -> (Option<Position>, usize) {
        let Some(sequence) = self.sequence(room) else {
            return (None, 0);
        };
        let mut sequence = lock(&sequence);
        sequence.begin_after(position);
        let delivered = self.push_due(room, &mut sequence, push);
        (sequence.delivered().cloned(), delivered)
    }

    /// The state of `room` from which a comparison with its history begins; `None` if no order is kept here, or the position
    /// is not known yet.
    pub(crate) fn begin_comparison(&self, room: &str) -> Option<ComparisonStart> {
        let sequence = self.sequence(room)?;
        let sequence = lock(&sequence);
        Some(ComparisonStart {
            delivered: sequence.delivered()?.clone(),
            after: sequence.compare_after(),
            retention: sequence.retention(),
            is_waiting: sequence.is_waiting(),
        })
    }

    /// Compares `room` with `page` of its history, and pushes messages that were missing. If some cannot be delivered, tells
    /// the members.
    pub(crate) fn compare(
        &self,
        room: &str,
        start: &ComparisonStart,
        page: &HistoryPage,
        push: Push<'_>,
    ) -> (Comparison, usize) {
        let Some(sequence) = self.sequence(room) else {
            return (Comparison::Complete, 0);
        };
        let mut sequence = lock(&sequence);
        let comparison = sequence.compare(page, &start.delivered);
        if let Comparison::Missed(reason, position) = &comparison {
            self.ungate_caught_up(room, &mut sequence, u64::MAX);
            let members = self.members(room);
            for member in members.iter().flat_map(|(list, _)| &**list) {
                push.tell_missed(member, self.at(room, position, *reason));
            }
        }
        let delivered = self.push_due(room, &mut sequence, push);
        (comparison, delivered)
    }

    /// The rooms with a known position. `time`: see [`KnownPosition::is_busy`].
    pub(crate) fn positions(&self, time: Duration) -> Vec<(Arc<str>, KnownPosition)> {
        let sequences: Vec<_> = self
            .rooms
            .iter()
            .filter_map(|entry| Some((entry.key().clone(), entry.sequence.clone()?)))
            .collect();
        let known = sequences.into_iter().filter_map(|(room, sequence)| {
            let sequence = lock(&sequence);
            let known = KnownPosition {
                delivered: sequence.delivered()?.clone(),
                is_busy: sequence.delivered_within(time),
                is_fading: sequence.is_fading(),
            };
            Some((room, known))
        });
        known.collect()
    }

    /// Pushes the messages that are due, and returns how many were taken in all.
    fn push_due(&self, room: &str, sequence: &mut Sequence, push: Push<'_>) -> usize {
        let mut delivered = 0;
        while let Some(kept) = sequence.next() {
            if !sequence.gates.is_empty() {
                self.ungate_caught_up(room, sequence, kept.offset - 1);
                for gate in sequence.gates.values_mut() {
                    if gate.caught_up_to().is_none() {
                        gate.hold(Some(kept.offset), &kept.frame);
                    }
                }
            }
            delivered += self.push_to_members(room, &kept, push);
        }
        delivered
    }

    /// Pushes a message of the history to the members that are not gated, and returns how many took it.
    fn push_to_members(&self, room: &str, kept: &KeptMessage, push: Push<'_>) -> usize {
        let Some((list, _)) = self.members(room) else {
            return 0;
        };
        match self.kind {
            RoomKind::Joined => push.to_all(&list, &kept.frame),
            RoomKind::OfUser => push.to_devices(&list, kept),
        }
    }

    /// The frame that tells a member that it missed messages before `position`.
    fn at(&self, room: &str, position: &Position, reason: RecoveryFailure) -> Frame {
        let at = RoomPosition {
            position: position.clone(),
            recovery: Some(Err(reason)),
        };
        match self.kind {
            RoomKind::Joined => outbound::joined(room, Some(&at)),
            RoomKind::OfUser => outbound::user_position(&at),
        }
    }

    /// The members that are not gated, and whether others are.
    fn members(&self, room: &str) -> Option<(Arc<[Arc<Connection>]>, bool)> {
        {
            let entry = self.rooms.get(room)?;
            if let Some(list) = &entry.list {
                return Some((list.clone(), list.len() < entry.members.len()));
            }
        }
        let mut entry = self.rooms.get_mut(room)?;
        let open = entry.members.values().filter(|member| !member.is_gated);
        let list: Arc<[_]> = open.map(|member| member.connection.clone()).collect();
        entry.list = Some(list.clone());
        Some((list.clone(), list.len() < entry.members.len()))
    }

    /// The number of members of `room`.
    pub(crate) fn len(&self, room: &str) -> usize {
        self.rooms.get(room).map_or(0, |entry| entry.members.len())
    }

    /// The number of members that take a message, now or in its turn.
    fn takers(&self, room: &str) -> usize {
        let is_open = |member: &&Member| !member.connection.outbox().is_closing();
        match self.kind {
            RoomKind::Joined => self.len(room),
            // As long as no device is open, the user is not reached.
            RoomKind::OfUser => self
                .rooms
                .get(room)
                .map_or(0, |entry| entry.members.values().filter(is_open).count()),
        }
    }

    fn sequence(&self, room: &str) -> Option<Arc<Mutex<Sequence>>> {
        self.rooms.get(room)?.sequence.clone()
    }
}

fn lock(sequence: &Mutex<Sequence>) -> MutexGuard<'_, Sequence> {
    sequence.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The rooms of this node, their members, and the order of messages in rooms with a history.
//!
//! A message without a number goes to all members at once. Messages of a history pass the room's [`Sequence`], whose lock is
//! held while they are pushed, so all members get them in the same order. A member that is catching up is *gated*: its
//! messages wait at a [`CatchUpGate`] until it has the old ones.
//!
//! Locks are taken in this order: the sequence of a room, its entry in the map, an outbox.

mod entry;
mod gate;
mod push;
mod sequence;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use signalbox_broker::{HistoryPage, Retention};
use signalbox_protocol::{Frame, Position, RecoveryFailure, RoomPosition};

pub(crate) use self::push::Push;
pub(crate) use self::sequence::{Comparison, KeptArrival};
use self::{entry::RoomEntry, gate::CatchUpGate, sequence::Sequence};
use super::Connection;

/// The rooms that have members on this node.
#[derive(Default)]
pub(crate) struct RoomTable {
    rooms: DashMap<Arc<str>, RoomEntry>,
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
        // Noted under the room's lock: a connection that closes meanwhile finds the room in its list, waits for the lock,
        // and removes itself again.
        if !connection.note_joined(name) {
            drop(entry);
            self.rooms
                .remove_if(room, |_, entry| entry.members.is_empty());
            return false;
        }
        entry.list = None;
        entry.insert(connection, false);
        true
    }

    /// Makes `connection` a member whose messages wait at a gate that holds `bytes_max` bytes. Returns the last message that
    /// the room delivered before, if that is known, and whether it was no member before; `None` if the connection is gone.
    pub(crate) fn join_gated(
        &self,
        connection: &Arc<Connection>,
        room: &str,
        retention: Retention,
        bytes_max: usize,
    ) -> Option<(Option<Position>, bool)> {
        let name: Arc<str> = room.into();
        let mut entry = self.rooms.entry(name.clone()).or_default();
        let is_new = connection.note_joined(name);
        if !is_new && !entry.members.contains_key(&connection.number()) {
            drop(entry);
            self.rooms
                .remove_if(room, |_, entry| entry.members.is_empty());
            return None;
        }
        entry.list = None;
        entry.insert(connection, true);
        let sequence = entry.sequence(retention);
        drop(entry);
        let mut sequence = lock(&sequence);
        sequence.set_retention(retention);
        let gate = CatchUpGate::new(connection.clone(), bytes_max);
        sequence.gates.insert(connection.number(), gate);
        Some((sequence.delivered().cloned(), is_new))
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
            let taken = self.deliver(room, frame, push);
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
            members: self.len(room),
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

    /// Whether live messages for a gated member were discarded since it joined. Its gate is empty again then, and begins
    /// after the returned position.
    pub(crate) fn restart_gate_if_over(
        &self,
        connection: &Connection,
        room: &str,
    ) -> Option<Position> {
        let sequence = self.sequence(room)?;
        let mut sequence = lock(&sequence);
        let delivered = sequence.delivered().cloned();
        let gate = sequence.gates.get_mut(&connection.number())?;
        if !gate.is_over() {
            return None;
        }
        gate.clear();
        delivered
    }

    /// Gives a gated member the live messages after `position`, which it has been told, and all later ones.
    pub(crate) fn open_gate(
        &self,
        connection: &Arc<Connection>,
        room: &str,
        position: &RoomPosition,
        push: Push<'_>,
    ) -> (GateOutcome, usize) {
        let Some(sequence) = self.sequence(room) else {
            return (GateOutcome::Gone, 0);
        };
        let mut sequence = lock(&sequence);
        let delivered = sequence.delivered().cloned();
        let Some(gate) = sequence.gates.get_mut(&connection.number()) else {
            return (GateOutcome::Gone, 0);
        };
        if gate.is_over() {
            return (GateOutcome::Over, 0);
        }
        let at = &position.position;
        let held = gate.catch_up(at.offset);
        let mut pushed = 0;
        match delivered {
            Some(delivered) if delivered.epoch != at.epoch => {
                // The history was reset after its position was read.
                push.tell_missed(connection, room, &delivered, RecoveryFailure::Epoch);
                self.ungate(connection, room, &mut sequence);
            }
            Some(delivered) if delivered.offset < at.offset => {
                // Not this far yet: the gate stays, and skips messages up to there.
                pushed += push.held_to(connection, held);
            }
            _ => {
                pushed += push.held_to(connection, held);
                self.ungate(connection, room, &mut sequence);
            }
        }
        (GateOutcome::Open, pushed)
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
                push.tell_missed(member, room, position, *reason);
            }
        }
        let delivered = self.push_due(room, &mut sequence, push);
        (comparison, delivered)
    }

    /// The rooms with a known position, each with that position and whether a message was delivered within `time`.
    pub(crate) fn positions(&self, time: Duration) -> Vec<(Arc<str>, Position, bool)> {
        let sequences: Vec<_> = self
            .rooms
            .iter()
            .filter_map(|entry| Some((entry.key().clone(), entry.sequence.clone()?)))
            .collect();
        let known = sequences.into_iter().filter_map(|(room, sequence)| {
            let sequence = lock(&sequence);
            let position = sequence.delivered()?.clone();
            Some((room, position, sequence.delivered_within(time)))
        });
        known.collect()
    }

    /// Ends the gate of a member whose history could not be read. It gets the live messages that waited.
    pub(crate) fn give_up_gate(
        &self,
        connection: &Arc<Connection>,
        room: &str,
        push: Push<'_>,
    ) -> usize {
        let Some(sequence) = self.sequence(room) else {
            return 0;
        };
        let mut sequence = lock(&sequence);
        let gate = sequence.gates.get_mut(&connection.number());
        let held = gate.map(|gate| gate.catch_up(0)).unwrap_or_default();
        self.ungate(connection, room, &mut sequence);
        let mut delivered = push.held_to(connection, held);
        if sequence.gates.is_empty() {
            sequence.begin_with_waiting();
            delivered += self.push_due(room, &mut sequence, push);
        }
        delivered
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
            if let Some((list, _)) = self.members(room) {
                delivered += push.to_all(&list, &kept.frame);
            }
        }
        delivered
    }

    /// Ends the gates of members that have caught up to a message that is not after `offset`.
    fn ungate_caught_up(&self, room: &str, sequence: &mut Sequence, offset: u64) {
        let is_due =
            |gate: &CatchUpGate| gate.caught_up_to().is_some_and(|number| number <= offset);
        let due: Vec<u64> = sequence
            .gates
            .iter()
            .filter(|(_, gate)| is_due(gate))
            .map(|(number, _)| *number)
            .collect();
        if due.is_empty() {
            return;
        }
        if let Some(mut entry) = self.rooms.get_mut(room) {
            for number in &due {
                entry.ungate(*number);
            }
        }
        for number in due {
            sequence.gates.remove(&number);
        }
    }

    fn ungate(&self, connection: &Connection, room: &str, sequence: &mut Sequence) {
        sequence.gates.remove(&connection.number());
        if let Some(mut entry) = self.rooms.get_mut(room) {
            entry.ungate(connection.number());
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

    fn sequence(&self, room: &str) -> Option<Arc<Mutex<Sequence>>> {
        self.rooms.get(room)?.sequence.clone()
    }
}

fn lock(sequence: &Mutex<Sequence>) -> MutexGuard<'_, Sequence> {
    sequence.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

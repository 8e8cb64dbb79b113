//! Members that are catching up: from joining with a gate to its end.

use std::sync::Arc;

use signalbox_broker::Retention;
use signalbox_protocol::{Position, RecoveryFailure, RoomPosition};

use super::{GateOutcome, RoomTable, gate::CatchUpGate, lock, push::Push, sequence::Sequence};
use crate::Connection;

impl RoomTable {
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
        let Some(is_new) = self.note_joined(connection, name, &entry) else {
            drop(entry);
            self.rooms
                .remove_if(room, |_, entry| entry.members.is_empty());
            return None;
        };
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
                push.tell_missed(
                    connection,
                    self.at(room, &delivered, RecoveryFailure::Epoch),
                );
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

    /// Ends the gates of members that have caught up to a message that is not after `offset`.
    pub(super) fn ungate_caught_up(&self, room: &str, sequence: &mut Sequence, offset: u64) {
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
}

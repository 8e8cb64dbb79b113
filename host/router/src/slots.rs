//! Places for connections: the limits on their number, and the connection that gives up its place to another.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use signalbox_protocol::CloseCode;

use super::{
    Connection,
    table::{LocalTable, UserEntry},
};

/// A place for one connection: reserved before the upgrade, released when it is dropped.
pub struct ConnectionSlot {
    table: Arc<LocalTable>,
    user: Box<str>,
    /// The connection that holds it.
    connection: Option<Arc<Connection>>,
}

/// The limits on the number of connections.
#[derive(Clone, Copy, Debug)]
pub struct SlotLimits {
    /// For one user; 0 means no limit.
    pub per_user: usize,
    /// For the node; 0 means no limit.
    pub in_all: usize,
    /// How long a client may take to answer a ping before its connection may be replaced.
    pub ping_patience: Duration,
}

/// The reason why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotRefused {
    /// The user has the maximum number of connections.
    #[error("too many connections of this user")]
    User,
    /// The node has the maximum number of connections.
    #[error("this node has no room for another connection")]
    Node,
}

impl LocalTable {
    /// Takes a slot for a connection of `user`, within `limits`. If the user has no slot left, the connection that has been
    /// silent for longest and has not answered a ping is closed and loses its slot. If all answered, they are pinged again,
    /// so that a later call may find a dead one.
    ///
    /// # Errors
    /// Returns [`SlotRefused`] with the limit that is reached.
    pub fn reserve(
        self: &Arc<Self>,
        user: &str,
        limits: SlotLimits,
    ) -> Result<ConnectionSlot, SlotRefused> {
        let taken = self.slots.fetch_add(1, Ordering::Relaxed) + 1;
        if limits.in_all > 0 && taken > limits.in_all {
            self.slots.fetch_sub(1, Ordering::Relaxed);
            return Err(SlotRefused::Node);
        }
        let mut entry = self.users.entry(user.into()).or_default();
        let mut replaced = None;
        if limits.per_user > 0 && entry.slots >= limits.per_user {
            replaced = entry.most_silent(limits.ping_patience);
            let Some(silent) = &replaced else {
                let connections = entry.connections.clone();
                drop(entry);
                self.slots.fetch_sub(1, Ordering::Relaxed);
                connections.iter().for_each(|connection| connection.probe());
                return Err(SlotRefused::User);
            };
            // Under the user's lock: its slot checks this under the same lock when it is released.
            silent.replace();
        } else {
            entry.slots += 1;
        }
        drop(entry);
        if let Some(silent) = replaced {
            let reason = "it did not answer a ping, and the user needs its place";
            silent.outbox().close(CloseCode::REPLACED, reason);
        }
        self.metrics.active_connections.add(1);
        Ok(ConnectionSlot {
            table: self.clone(),
            user: user.into(),
            connection: None,
        })
    }
}

impl UserEntry {
    /// The connection that has been silent for longest, of those that have not answered a ping for `patience`.
    fn most_silent(&self, patience: Duration) -> Option<Arc<Connection>> {
        let replaceable = |connection: &&Arc<Connection>| !connection.is_replaced();
        let connections = self.connections.iter().filter(replaceable);
        let silent = connections
            .filter_map(|connection| Some((connection.silent_since(patience)?, connection)));
        let most = silent.min_by_key(|(since, _)| *since);
        most.map(|(_, connection)| connection.clone())
    }
}

impl ConnectionSlot {
    /// Assigns the slot to `connection`, which may be replaced from now on.
    pub fn give_to(&mut self, connection: Arc<Connection>) {
        self.connection = Some(connection);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        if let Some(mut entry) = self.table.users.get_mut(&self.user) {
            let connection = self.connection.as_ref();
            let given_up = connection.is_some_and(|connection| connection.is_replaced());
            entry.slots -= usize::from(!given_up);
        }
        self.table.users.remove_if(&self.user, |_, entry| {
            entry.slots == 0 && entry.connections.is_empty()
        });
        self.table.slots.fetch_sub(1, Ordering::Relaxed);
        self.table.metrics.active_connections.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::table::tests::{connection, table};

    const LIMITS: SlotLimits = SlotLimits {
        per_user: 2,
        in_all: 3,
        ping_patience: Duration::from_secs(3),
    };

    #[test]
    fn slots_are_bounded_by_user_and_by_node_and_come_back() {
        let table = table();
        let one = table.reserve("a", LIMITS).unwrap();
        let _two = table.reserve("a", LIMITS).unwrap();
        assert_eq!(table.reserve("a", LIMITS).err(), Some(SlotRefused::User));
        let _three = table.reserve("b", LIMITS).unwrap();
        assert_eq!(table.reserve("c", LIMITS).err(), Some(SlotRefused::Node));
        drop(one);
        assert!(table.reserve("a", LIMITS).is_ok());
        assert_eq!(table.len(), 2);
    }

    /// A connection of `a` with its slot.
    fn held(table: &Arc<LocalTable>) -> (Arc<Connection>, ConnectionSlot) {
        let limits = SlotLimits {
            in_all: 0,
            ..LIMITS
        };
        let mut slot = table.reserve("a", limits).expect("there is room");
        let connection = connection("a");
        table.insert(connection.clone());
        slot.give_to(connection.clone());
        (connection, slot)
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_silent_connection_that_missed_a_ping_is_replaced() {
        let table = table();
        let ((one, one_slot), (two, two_slot)) = (held(&table), held(&table));
        let start = Instant::now();
        tokio::time::advance(Duration::from_secs(30)).await;
        // Both are pinged now, and the second has been silent for longer.
        one.note_ping(Instant::now(), start + Duration::from_secs(2));
        two.note_ping(Instant::now(), start + Duration::from_secs(1));
        assert!(table.reserve("a", LIMITS).is_err(), "they may answer yet");
        tokio::time::advance(LIMITS.ping_patience).await;
        let (three, _three_slot) = held(&table);
        assert!(two.outbox().is_closing() && !one.outbox().is_closing());
        // Its place is freed only once, whenever it goes.
        drop(two_slot);
        table.remove(&two);
        one.note_heard();
        assert!(table.reserve("a", LIMITS).is_err());
        drop(one_slot);
        table.remove(&one);
        assert!(table.reserve("a", LIMITS).is_ok());
        assert!(!three.outbox().is_closing());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_were_not_pinged_are_probed_when_their_places_are_wanted() {
        let table = table();
        let ((one, _slot), (two, _other_slot)) = (held(&table), held(&table));
        let now = Instant::now();
        one.note_ping(now, now);
        assert!(!two.take_probe());
        assert!(table.reserve("a", LIMITS).is_err());
        assert!(!one.take_probe(), "a ping waits for its answer already");
        assert!(two.take_probe() && !two.take_probe());
    }
}

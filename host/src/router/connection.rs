//! What the server holds of one client.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Outbox;
use crate::{broker::ConnectionReport, protocol::ClientInfo};

/// One client's connection, as everybody but its session sees it.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    client: Arc<ClientInfo>,
    v1: bool,
    traces_plugins: bool,
    outbox: Outbox,
    /// None once the connection is gone: from then on it can join nothing.
    rooms: Mutex<Option<BTreeSet<Arc<str>>>>,
}

impl Connection {
    /// A connection of `client`; `v1`: it speaks `signalbox.v1`.
    pub fn new(client: ClientInfo, v1: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            client: Arc::new(client),
            v1,
            traces_plugins: false,
            outbox: Outbox::new(),
            rooms: Mutex::new(Some(BTreeSet::new())),
        }
    }

    /// The same, which is told with each `ack` which versions of plugins saw its message.
    #[must_use]
    pub fn tracing_plugins(self, traces_plugins: bool) -> Self {
        Self {
            traces_plugins,
            ..self
        }
    }

    /// Whether it is told which versions of plugins saw its messages.
    pub fn traces_plugins(&self) -> bool {
        self.traces_plugins
    }

    /// Who it is.
    pub fn client(&self) -> &Arc<ClientInfo> {
        &self.client
    }

    /// The user's ID.
    pub fn user(&self) -> &str {
        &self.client.user
    }

    /// Whether it asked for `signalbox.v1`, and so for frames beyond those of `websocket-app`.
    pub fn v1(&self) -> bool {
        self.v1
    }

    /// What waits for it.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether it is a member of `room`.
    pub fn is_member(&self, room: &str) -> bool {
        self.rooms()
            .as_ref()
            .is_some_and(|rooms| rooms.contains(room))
    }

    /// What others are told of it.
    pub fn report(&self) -> ConnectionReport {
        ConnectionReport {
            id: self.client.connection.clone(),
            address: self.client.address.clone(),
            connected_at_ms: self.client.connected_at_ms,
            v1: self.v1,
            rooms: self.room_count(),
        }
    }

    /// How many rooms it is in.
    pub fn room_count(&self) -> usize {
        self.rooms().as_ref().map_or(0, BTreeSet::len)
    }

    /// A number that no other connection of this process has.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// False where it is in the room already, or gone.
    pub(super) fn note_joined(&self, room: Arc<str>) -> bool {
        self.rooms()
            .as_mut()
            .is_some_and(|rooms| rooms.insert(room))
    }

    pub(super) fn note_left(&self, room: &str) -> bool {
        self.rooms()
            .as_mut()
            .is_some_and(|rooms| rooms.remove(room))
    }

    /// Marks it as gone, and returns the rooms it was in.
    pub(super) fn retire(&self) -> BTreeSet<Arc<str>> {
        self.rooms().take().unwrap_or_default()
    }

    fn rooms(&self) -> MutexGuard<'_, Option<BTreeSet<Arc<str>>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

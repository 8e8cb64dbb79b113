//! What a client of the herd has seen, as its process reports it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Map;

use super::members::room;
use crate::clients::driver::Driver;

/// The report of a client.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Report {
    pub(super) user: String,
    /// The attempts to connect so far.
    pub(super) attempts: usize,
    /// When it connected, in milliseconds since 1970.
    pub(super) connected: Vec<u64>,
    /// How long it chose to wait before the first attempt after each loss, in milliseconds.
    pub(super) waits: Vec<u64>,
    /// Codes of errors, and of memberships that ended.
    pub(super) errors: Vec<String>,
    pub(super) rooms: BTreeMap<String, RoomReport>,
}

/// The report of a client about a room.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RoomReport {
    /// Whether the first join has succeeded.
    pub(super) joined: bool,
    /// The numbers of the messages in the order in which they came, as runs of a first and a last one.
    pub(super) numbers: Vec<(u64, u64)>,
    /// Their offsets.
    pub(super) offsets: Vec<(u64, u64)>,
    /// The outcome of each further join.
    pub(super) recovered: Vec<bool>,
}

/// Asks a process for the reports of its clients.
pub(super) fn ask(driver: &mut Driver) -> anyhow::Result<Vec<Report>> {
    let command = Map::from_iter([("do".to_owned(), "report".into())]);
    let reports = driver.ask(command)?;
    serde_json::from_value(reports).context("the report has another form")
}

impl Report {
    /// When it connected again.
    pub(super) fn reconnects(&self) -> &[u64] {
        self.connected.get(1..).unwrap_or_default()
    }

    pub(super) fn has_joined(&self) -> bool {
        self.rooms.values().all(|room| room.joined)
    }

    /// Whether it has joined its rooms again after the last reconnect.
    pub(super) fn has_recovered(&self) -> bool {
        let reconnects = self.reconnects().len();
        let rooms = self.rooms.values();
        rooms
            .map(|room| room.recovered.len())
            .all(|joins| joins >= reconnects)
    }

    /// Whether it has the last message of each of its rooms, whose numbers are in `published`.
    pub(super) fn has_all(&self, published: &[u64]) -> bool {
        let numbers = published.iter().enumerate();
        numbers
            .filter_map(|(number, last)| Some((self.rooms.get(&room(number))?, last)))
            .all(|(room, last)| room.numbers.last().is_some_and(|run| run.1 >= *last))
    }
}

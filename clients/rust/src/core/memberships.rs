//! The rooms that an application wants to be in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::{Alarm, Backoff};
use crate::error::Error;
use crate::events::Presence;
use crate::frames::{JoinPayload, OutgoingFrame, Position};
use crate::options::{JoinOptions, RoomToken};

/// Joins are retried after random times up to these.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(20);

/// The result of a join of the application: whether missed messages were recovered.
pub(super) type Joined = Result<Option<bool>, Error>;

/// A room that the application wants to be in, and the state of its joins.
pub(super) struct Membership {
    /// Its place among the memberships.
    pub(super) number: u64,
    pub(super) options: JoinOptions,
    /// The token of the room, if there is one now.
    pub(super) token: Option<String>,
    /// Whether the token was never accepted.
    pub(super) fresh: bool,
    pub(super) backoff: Backoff,
    pub(super) position: Option<Position>,
    pub(super) presence: Presence,
    pub(super) joined: bool,
    /// Whether the client was a member before.
    pub(super) confirmed: bool,
    /// The ID of the join that waits for its answer, and the position that it named.
    pub(super) call: Option<(String, Option<Position>)>,
    /// Whether to join once more after the answer.
    pub(super) rejoin: bool,
    /// Whether the join waits for its turn.
    pub(super) queued: bool,
    pub(super) retry: Option<Alarm>,
    /// The limit of the token callback, if it runs.
    pub(super) fetching: Option<Alarm>,
    pub(super) waiters: Vec<oneshot::Sender<Joined>>,
}

impl Membership {
    pub(super) fn has_callback(&self) -> bool {
        matches!(self.options.token, Some(RoomToken::Callback(_)))
    }

    pub(super) fn resolve(&mut self, result: &Joined) {
        for waiter in self.waiters.drain(..) {
            // The application may no longer wait.
            let _ = waiter.send(result.clone());
        }
    }

    pub(super) fn set_token(&mut self) {
        self.token = match &self.options.token {
            Some(RoomToken::Fixed(token)) => Some(token.clone()),
            Some(RoomToken::Callback(_)) | None => None,
        };
        self.fresh = true;
    }

    pub(super) fn frame(&self, room: &str) -> OutgoingFrame {
        let mut frame = OutgoingFrame::about("join", Some(room));
        let payload = JoinPayload {
            since: self.position.as_ref(),
            last: self.options.last.filter(|_| self.position.is_none()),
            presence: self.options.presence,
            token: self.token.as_deref(),
        };
        // Strings and numbers are always JSON.
        let payload = serde_json::to_value(payload).unwrap_or_default();
        if payload.as_object().is_some_and(|fields| !fields.is_empty()) {
            frame.payload = payload;
        } else {
            frame.payload = Value::Null;
        }
        frame
    }
}

/// All memberships of a client.
#[derive(Default)]
pub(super) struct Rooms {
    pub(super) count: u64,
    pub(super) memberships: HashMap<String, Membership>,
    pub(super) order: BTreeMap<u64, String>,
    pub(super) to_join: VecDeque<String>,
    pub(super) unanswered: usize,
    /// The rooms that messages wait for after a reconnect.
    pub(super) unsettled: HashSet<String>,
}

impl Rooms {
    /// The rooms that the client is in now, sorted.
    pub(super) fn joined(&self) -> Vec<String> {
        let joined = self
            .memberships
            .iter()
            .filter(|(_, membership)| membership.joined);
        let mut names: Vec<_> = joined.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn presence(&self, room: &str) -> Presence {
        let membership = self.memberships.get(room);
        membership
            .map(|membership| membership.presence.clone())
            .unwrap_or_default()
    }

    pub(super) fn is_fetching(&self, room: &str) -> bool {
        self.memberships
            .get(room)
            .is_some_and(|membership| membership.fetching.is_some())
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.order.values().cloned().collect()
    }

    pub(super) fn add(&mut self, name: &str, options: JoinOptions) {
        self.count += 1;
        self.order.insert(self.count, name.to_owned());
        let mut membership = Membership {
            number: self.count,
            options,
            token: None,
            fresh: true,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
            position: None,
            presence: Presence::default(),
            joined: false,
            confirmed: false,
            call: None,
            rejoin: false,
            queued: false,
            retry: None,
            fetching: None,
            waiters: Vec::new(),
        };
        membership.set_token();
        self.memberships.insert(name.to_owned(), membership);
    }
}

//! The users of a room as its members know them, and the reports that they get.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use signalbox_broker::MemberReport;
use signalbox_protocol::{Frame, PresencePayload, PresentUser};
use tokio::time::Instant;

/// The bytes that a listed user takes in a frame, in addition to its ID and info.
const USER_BYTES: usize = 48;

/// The users of a room that its members know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roster {
    /// All users, by ID.
    Listed(BTreeMap<Arc<str>, KnownUser>),
    /// They are too many to list: their number.
    Counted(usize),
}

/// A user that the members know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownUser {
    report: MemberReport,
    /// When the user was first found to be missing. The members learn of it at the end of the grace.
    missing_since: Option<Instant>,
}

/// Limits on reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct RosterLimits {
    /// How long a user may be missing without having left.
    pub(super) grace: Duration,
    /// The most users that are listed.
    pub(super) users: usize,
    /// The most bytes that a list may take.
    pub(super) bytes: usize,
}

/// The contents of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RosterChange {
    /// Nothing.
    Nothing,
    /// Users came and left.
    Users {
        joined: Vec<MemberReport>,
        left: Vec<Arc<str>>,
    },
    /// The number of users. They are not listed any more.
    Total,
    /// All users. They are listed again.
    All,
}

impl Default for Roster {
    fn default() -> Self {
        Self::Listed(BTreeMap::new())
    }
}

impl RosterLimits {
    fn allow<'r>(self, mut reports: impl ExactSizeIterator<Item = &'r MemberReport>) -> bool {
        let mut bytes = 0;
        reports.len() <= self.users
            && reports.all(|report| {
                let info = report.info.as_ref().map_or(0, |info| info.as_str().len());
                bytes += USER_BYTES + encoded_len(&report.user) + info;
                bytes <= self.bytes
            })
    }

    /// A tenth lower: rooms that are about as large as the limit do not switch between list and number all the time.
    fn lowered(self) -> Self {
        Self {
            users: self.users - self.users / 10,
            bytes: self.bytes - self.bytes / 10,
            ..self
        }
    }
}

/// Compares the users that members know of with those that are there `now`, at the time `at`. Returns the users that they know
/// of afterwards, and the report that they need.
pub(super) fn diff(
    known: &Roster,
    now: &[MemberReport],
    at: Instant,
    limits: RosterLimits,
) -> (Roster, RosterChange) {
    match known {
        Roster::Listed(users) => diff_listed(users, now, at, limits),
        Roster::Counted(_) if limits.lowered().allow(now.iter()) => {
            (listed(now), RosterChange::All)
        }
        Roster::Counted(total) => {
            let change = if *total == now.len() {
                RosterChange::Nothing
            } else {
                RosterChange::Total
            };
            (Roster::Counted(now.len()), change)
        }
    }
}

fn diff_listed(
    known: &BTreeMap<Arc<str>, KnownUser>,
    now: &[MemberReport],
    at: Instant,
    limits: RosterLimits,
) -> (Roster, RosterChange) {
    let counted = || (Roster::Counted(now.len()), RosterChange::Total);
    if !limits.allow(now.iter()) {
        return counted();
    }
    let is_new = |report: &&MemberReport| !known.contains_key(&report.user);
    let joined: Vec<MemberReport> = now.iter().filter(is_new).cloned().collect();
    let mut users = users_of(now);
    let mut left = Vec::new();
    for (user, missing) in known {
        if users.contains_key(user) {
            continue;
        }
        let since = missing.missing_since.unwrap_or(at);
        if at.saturating_duration_since(since) >= limits.grace {
            left.push(user.clone());
        } else {
            let missing = KnownUser {
                report: missing.report.clone(),
                missing_since: Some(since),
            };
            users.insert(user.clone(), missing);
        }
    }
    if !limits.allow(users.values().map(|user| &user.report)) {
        return counted();
    }
    let change = if joined.is_empty() && left.is_empty() {
        RosterChange::Nothing
    } else {
        RosterChange::Users { joined, left }
    };
    (Roster::Listed(users), change)
}

fn listed(now: &[MemberReport]) -> Roster {
    Roster::Listed(users_of(now))
}

fn users_of(now: &[MemberReport]) -> BTreeMap<Arc<str>, KnownUser> {
    let known = |report: &MemberReport| KnownUser {
        report: report.clone(),
        missing_since: None,
    };
    now.iter()
        .map(|report| (report.user.clone(), known(report)))
        .collect()
}

impl Roster {
    /// When the first missing user has left, unless they come back.
    pub(super) fn grace_ends(&self, grace: Duration) -> Option<Instant> {
        let Self::Listed(users) = self else {
            return None;
        };
        let missing = users.values().filter_map(|user| user.missing_since);
        missing.min().map(|since| since + grace)
    }

    /// Whether only the number of users is known.
    pub(super) fn is_counted(&self) -> bool {
        matches!(self, Self::Counted(_))
    }

    /// The frame about all users of `room`.
    pub(super) fn snapshot(&self, room: &str) -> Frame {
        let mut payload = PresencePayload::new(room, self.total());
        if let Self::Listed(users) = self {
            let members = users.values().map(|user| present(&user.report));
            payload.members = Some(members.collect());
        }
        payload.encode()
    }

    /// The frame about `change`, which led to this state; `None` if there is none.
    pub(super) fn report(&self, room: &str, change: &RosterChange) -> Option<Frame> {
        let payload = PresencePayload::new(room, self.total());
        match change {
            RosterChange::Nothing => None,
            RosterChange::Total => Some(payload.encode()),
            RosterChange::All => Some(self.snapshot(room)),
            RosterChange::Users { joined, left } => {
                let payload = PresencePayload {
                    joined: joined.iter().map(present).collect(),
                    left: left.iter().map(|user| &**user).collect(),
                    ..payload
                };
                Some(payload.encode())
            }
        }
    }

    fn total(&self) -> usize {
        match self {
            Self::Listed(users) => users.len(),
            Self::Counted(total) => *total,
        }
    }
}

/// The most bytes that `user` takes in JSON.
fn encoded_len(user: &str) -> usize {
    const ESCAPE: usize = r"\u0000".len();
    let is_escaped = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    let escaped = user.bytes().filter(is_escaped).count();
    user.len() + escaped * (ESCAPE - 1)
}

fn present(report: &MemberReport) -> PresentUser<'_> {
    PresentUser {
        user_id: &report.user,
        connections: report.connections,
        info: report.info.as_ref(),
    }
}

#[cfg(test)]
mod tests;

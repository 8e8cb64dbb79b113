//! Memberships that a token grants for a time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use signalbox_broker::TokenMark;
use signalbox_protocol::MemberInfo;

use super::{Connection, Router};

/// A membership of a room that ends with the token that granted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomGrant {
    /// When the token expires.
    pub expires_at: SystemTime,
    /// The mark of the token, for revocations.
    pub mark: TokenMark,
    /// The claim `info` of the token. The other members see it in place of that of the connection's token.
    pub info: Option<MemberInfo>,
}

/// Why a granted membership is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantEnd {
    /// The token has expired, and so has the grace after it.
    Expired,
    /// The token was revoked.
    Revoked,
}

impl GrantEnd {
    /// The reason as text, as used in `left`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// The grants of one connection, by room.
#[derive(Debug, Default)]
pub(super) struct RoomGrants(HashMap<Arc<str>, HeldGrant>);

#[derive(Debug)]
struct HeldGrant {
    grant: RoomGrant,
    is_revoked: bool,
    delay: GraceDelay,
}

/// How much later than at the end of its token a grace begins, because the client could not replace the token before. All times are
/// by the system's clock, which may be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraceDelay {
    /// Whole seconds; 0 for none. Few bytes: each connection has one.
    seconds: u32,
}

impl GraceDelay {
    /// Brings the delay up to date at `now`. If the client `could_not` replace the token that expired at `expires_at`, the grace
    /// begins now, once. If the clock was set back to before that moment, it begins at the earlier time.
    pub fn update(&mut self, expires_at: SystemTime, now: SystemTime, could_not: bool) {
        let late = now.duration_since(expires_at);
        let seconds = late.map_or(0, |late| {
            u32::try_from(late.as_secs()).unwrap_or(u32::MAX).max(1)
        });
        if self.seconds == 0 && could_not {
            self.seconds = seconds;
        }
        self.seconds = self.seconds.min(seconds);
    }

    /// The end of the `grace` after a token that expires at `expires_at`; `None` if it is later than any time.
    pub fn grace_end(self, expires_at: SystemTime, grace: Duration) -> Option<SystemTime> {
        let delay = Duration::from_secs(self.seconds.into());
        expires_at.checked_add(delay)?.checked_add(grace)
    }
}

impl RoomGrants {
    /// Adds a grant, in place of an earlier one for the same room.
    pub(super) fn insert(&mut self, room: Arc<str>, grant: RoomGrant) {
        let held = HeldGrant {
            grant,
            is_revoked: false,
            delay: GraceDelay::default(),
        };
        self.0.insert(room, held);
    }

    pub(super) fn remove(&mut self, room: &str) {
        self.0.remove(room);
    }

    pub(super) fn info(&self, room: &str) -> Option<MemberInfo> {
        self.0.get(room)?.grant.info.clone()
    }

    /// When the first grace ends, if no token is replaced.
    pub(super) fn first_end(&self, grace: Duration) -> Option<SystemTime> {
        let held = self.0.values();
        held.filter_map(|held| held.delay.grace_end(held.grant.expires_at, grace))
            .min()
    }

    /// Marks the grants whose token has a mark that `is_revoked`. Returns whether there are any.
    pub(super) fn revoke(&mut self, is_revoked: impl Fn(TokenMark) -> bool) -> bool {
        let mut any = false;
        for held in self.0.values_mut() {
            if is_revoked(held.grant.mark) {
                held.is_revoked = true;
                any = true;
            }
        }
        any
    }

    /// Removes the grants that are over at `now`. `was_stopped`: the process did not run until now, so that the client may
    /// have had no chance to join with another token. The grace of tokens that expired meanwhile begins now, once.
    pub(super) fn take_ended(
        &mut self,
        now: SystemTime,
        grace: Duration,
        was_stopped: bool,
    ) -> Vec<(Arc<str>, GrantEnd)> {
        let mut ended = Vec::new();
        self.0.retain(|room, held| {
            let end = held.end(now, grace, was_stopped);
            ended.extend(end.map(|end| (room.clone(), end)));
            end.is_none()
        });
        ended
    }
}

impl HeldGrant {
    fn end(&mut self, now: SystemTime, grace: Duration, was_stopped: bool) -> Option<GrantEnd> {
        if self.is_revoked {
            return Some(GrantEnd::Revoked);
        }
        let expires_at = self.grant.expires_at;
        self.delay.update(expires_at, now, was_stopped);
        // The end of a token lies before the end of the calendar.
        let end = self.delay.grace_end(expires_at, grace);
        end.is_some_and(|end| end <= now)
            .then_some(GrantEnd::Expired)
    }
}

impl Router {
    /// Grants `connection` the membership of `room`, which it must join next, or is in already.
    pub fn grant_room(&self, connection: &Connection, room: &str, grant: RoomGrant) {
        let mark = grant.mark;
        connection.set_grant(room, grant);
        // It may have been revoked after it was verified, and before it could be found.
        if self.check_revoked(connection.user(), mark).is_err() {
            connection.revoke_grants(|granted| granted == mark);
        }
    }

    /// Shows those who come to `room` from now on the `info` that `connection` has there now.
    pub fn refresh_member(&self, connection: &Connection, room: &str) {
        if self.table.presence.refresh(connection, room) {
            self.broker.member_changed(room, connection.user());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const GRACE: Duration = Duration::from_secs(25);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn grant(id: &str, expires_at: u64) -> RoomGrant {
        RoomGrant {
            expires_at: at(expires_at),
            mark: TokenMark::new(Some(id), None),
            info: None,
        }
    }

    fn grants(grants: &[(&str, RoomGrant)]) -> RoomGrants {
        let mut all = RoomGrants::default();
        for (room, grant) in grants {
            all.insert((*room).into(), grant.clone());
        }
        all
    }

    fn ended(
        grants: &mut RoomGrants,
        now: u64,
        grace: Duration,
        was_stopped: bool,
    ) -> Vec<(Arc<str>, GrantEnd)> {
        let mut ended = grants.take_ended(at(now), grace, was_stopped);
        ended.sort_by(|(one, _), (other, _)| one.cmp(other));
        ended
    }

    #[test]
    fn a_membership_ends_after_the_grace_and_not_before() {
        let mut all = grants(&[("a", grant("1", 1_000)), ("b", grant("2", 1_010))]);
        assert_eq!(all.first_end(GRACE), Some(at(1_025)));
        assert_eq!(ended(&mut all, 1_024, GRACE, false), []);
        let a = [("a".into(), GrantEnd::Expired)];
        assert_eq!(ended(&mut all, 1_025, GRACE, false), a);
        assert_eq!(all.first_end(GRACE), Some(at(1_035)));
        // A shorter grace applies at once, and a clock that was set back ends nothing.
        assert_eq!(ended(&mut all, 1_009, Duration::ZERO, false), []);
        let b = [("b".into(), GrantEnd::Expired)];
        assert_eq!(ended(&mut all, 1_010, Duration::ZERO, false), b);
        assert_eq!(all.first_end(GRACE), None);
    }

    #[test]
    fn another_token_takes_the_place_of_the_first_one() {
        let mut all = grants(&[("a", grant("1", 1_000)), ("a", grant("2", 2_000))]);
        assert!(!all.revoke(|mark| mark == TokenMark::new(Some("1"), None)));
        assert_eq!(ended(&mut all, 1_500, GRACE, false), []);
        all.remove("a");
        assert_eq!(ended(&mut all, 9_000, GRACE, false), []);
    }

    #[test]
    fn a_revoked_token_ends_its_memberships_at_once() {
        let mut all = grants(&[("a", grant("1", 1_000)), ("b", grant("2", 1_000))]);
        assert!(all.revoke(|mark| mark == TokenMark::new(Some("2"), None)));
        let b = [("b".into(), GrantEnd::Revoked)];
        assert_eq!(ended(&mut all, 1, GRACE, false), b);
    }

    #[test]
    fn a_clock_that_is_set_back_ends_an_extended_grace_in_time() {
        const DAY: u64 = 24 * 60 * 60;
        let mut all = grants(&[("a", grant("1", 1_000))]);
        assert_eq!(ended(&mut all, 1_000 + DAY, GRACE, true), []);
        assert_eq!(all.first_end(GRACE), Some(at(1_025 + DAY)));
        assert_eq!(ended(&mut all, 1_010, GRACE, false), []);
        assert_eq!(all.first_end(GRACE), Some(at(1_035)));
        assert_eq!(ended(&mut all, 900, GRACE, false), []);
        assert_eq!(all.first_end(GRACE), Some(at(1_025)));
    }

    #[test]
    fn after_the_process_was_stopped_the_grace_restarts_once() {
        let mut all = grants(&[("a", grant("1", 1_000))]);
        assert_eq!(ended(&mut all, 5_000, GRACE, true), []);
        assert_eq!(all.first_end(GRACE), Some(at(5_025)));
        let a = [("a".into(), GrantEnd::Expired)];
        assert_eq!(ended(&mut all, 9_000, GRACE, true), a);
    }
}

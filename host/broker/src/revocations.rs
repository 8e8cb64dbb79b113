//! Revoked tokens and blocked users, until the end of each revocation.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use signalbox_protocol::timestamp::unix_millis;

use super::BrokerError;

/// The most revocations that the nodes of a cluster hold.
pub const REVOCATIONS_MAX: usize = 100_000;

/// How often revocations that have ended are removed, unless the set is full.
const SWEEP_INTERVAL_MS: u64 = 10_000;

/// How long a revocation is kept after its end, unless the set is full. The system's clock may be set forward and back again, by an
/// hour or a day: the revocation must still be there then, because its token is valid again too.
pub(crate) const KEPT_AFTER_END_MS: u64 = 2 * 24 * 60 * 60 * 1_000;

/// A refusal of tokens or of a user that every node enforces until its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The tokens or the user that it is about.
    pub of: Revoked,
    /// Its end, in milliseconds since 1970-01-01T00:00:00Z.
    pub until_ms: u64,
}

/// The tokens or the user that a [`Revocation`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// The token with this ID (`jti`).
    Token(String),
    /// The tokens of a user that were issued (`iat`) before a moment, and those that do not say when they were issued.
    TokensOf {
        /// The ID of the user.
        user: String,
        /// The moment, in milliseconds since 1970-01-01T00:00:00Z.
        issued_before_ms: u64,
    },
    /// The user with this ID, with any token or none.
    User(String),
}

/// The properties of a token that revocations refer to, in a form that every connection has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMark {
    /// A hash of the token's ID, if it has one.
    id: Option<NonZeroU64>,
    /// When it was issued, in milliseconds since 1970-01-01T00:00:00Z; 0 if it does not say so.
    issued_at_ms: u64,
}

/// Why a revocation does not let a client in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Its token is revoked.
    Token,
    /// Its user is blocked.
    User,
    /// The revocations have not been read yet, so its token may be revoked.
    Unknown,
}

/// Why a revocation was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// There are too many.
    #[error(
        "there are {REVOCATIONS_MAX} revocations already; try again after some have ended, and let new ones end earlier"
    )]
    Full,
    /// The broker does not answer. The revocation may have been made all the same.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// The revocations that a node knows, at most [`REVOCATIONS_MAX`] of them. Times are arguments: it never reads the clock.
#[derive(Debug, Default)]
pub struct RevocationSet {
    held: RwLock<HeldRevocations>,
    is_read: AtomicBool,
}

#[derive(Debug, Default)]
struct HeldRevocations {
    /// By the hash of the token's ID.
    tokens: HashMap<NonZeroU64, RevokedToken>,
    cutoffs: HashMap<Box<str>, Vec<Cutoff>>,
    /// The end for each blocked user.
    users: HashMap<Box<str>, u64>,
    /// The number of all [`Cutoff`]s.
    cutoff_count: usize,
    swept_ms: u64,
}

#[derive(Debug)]
struct RevokedToken {
    id: Box<str>,
    until_ms: u64,
}

/// Tokens of one user that were issued before `issued_before_ms` are refused until `until_ms`.
#[derive(Clone, Copy, Debug)]
struct Cutoff {
    issued_before_ms: u64,
    until_ms: u64,
}

impl Cutoff {
    /// Whether `other` adds nothing to this one.
    fn covers(&self, other: &Self) -> bool {
        self.issued_before_ms >= other.issued_before_ms && self.until_ms >= other.until_ms
    }
}

impl TokenMark {
    /// The mark of a client without a token.
    pub const NONE: Self = Self {
        id: None,
        issued_at_ms: u64::MAX,
    };

    /// The mark of a token with this ID (`jti`) and time of issue (`iat`), if it has them.
    pub fn new(id: Option<&str>, issued_at: Option<SystemTime>) -> Self {
        Self {
            id: id.map(hash),
            issued_at_ms: issued_at.map_or(0, unix_millis),
        }
    }

    /// The mark as two numbers, for [`TokenMark::from_numbers`].
    pub fn numbers(self) -> [u64; 2] {
        [self.id.map_or(0, NonZeroU64::get), self.issued_at_ms]
    }

    /// The mark that [`TokenMark::numbers`] returned as these numbers.
    pub fn from_numbers([id, issued_at_ms]: [u64; 2]) -> Self {
        Self {
            id: NonZeroU64::new(id),
            issued_at_ms,
        }
    }
}

impl Revoked {
    /// Whether it is about `user` with a token of this mark.
    pub fn concerns(&self, user: &str, token: TokenMark) -> bool {
        match self {
            Self::Token(id) => token.id == Some(hash(id)),
            Self::TokensOf {
                user: owner,
                issued_before_ms,
            } => owner == user && token.issued_at_ms < *issued_before_ms,
            Self::User(blocked) => blocked == user,
        }
    }
}

impl RevocationSet {
    /// Whether `user` may connect with a token of this mark at `now`. Without a token, only a block of the user matters,
    /// and it is not necessary that the revocations have been read.
    ///
    /// # Errors
    /// Returns why the client may not connect.
    pub fn check(&self, user: &str, token: TokenMark, now: SystemTime) -> Result<(), Denial> {
        if token != TokenMark::NONE && !self.is_read() {
            return Err(Denial::Unknown);
        }
        let now = unix_millis(now);
        let held = self.held();
        let is_held = |until: &u64| now < *until;
        if held.users.get(user).is_some_and(is_held) {
            return Err(Denial::User);
        }
        let by_id = token.id.and_then(|id| held.tokens.get(&id));
        let mut by_time = held.cutoffs.get(user).into_iter().flatten();
        if by_id.is_some_and(|token| is_held(&token.until_ms))
            || by_time.any(|cutoff| {
                token.issued_at_ms < cutoff.issued_before_ms && is_held(&cutoff.until_ms)
            })
        {
            return Err(Denial::Token);
        }
        Ok(())
    }

    /// Adds a revocation, or extends one. Returns whether that changed anything at `now`.
    ///
    /// # Errors
    /// Returns [`RevokeError::Full`] if there are too many.
    pub fn insert(&self, revocation: &Revocation, now: SystemTime) -> Result<bool, RevokeError> {
        let now = unix_millis(now);
        if revocation.until_ms <= now {
            return Ok(false);
        }
        let mut held = self.held_mut();
        held.make_room(now);
        held.insert(revocation)
    }

    /// The revocations that have not ended at `now`, in no particular order.
    pub fn list(&self, now: SystemTime) -> Vec<Revocation> {
        let now = unix_millis(now);
        let mut list = self.held().list();
        list.retain(|revocation| now < revocation.until_ms);
        list
    }

    /// The number of revocations that have not ended at `now`.
    pub fn count(&self, now: SystemTime) -> usize {
        self.held().count(unix_millis(now))
    }

    /// Whether the revocations of the cluster have been read since the node started.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// Notes that they have been read.
    pub(crate) fn note_read(&self) {
        self.is_read.store(true, Ordering::Release);
    }

    fn held(&self) -> RwLockReadGuard<'_, HeldRevocations> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, HeldRevocations> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldRevocations {
    fn len(&self) -> usize {
        self.tokens.len() + self.cutoff_count + self.users.len()
    }

    fn insert(&mut self, revocation: &Revocation) -> Result<bool, RevokeError> {
        let is_full = self.len() >= REVOCATIONS_MAX;
        let until_ms = revocation.until_ms;
        match &revocation.of {
            Revoked::Token(id) => match self.tokens.get_mut(&hash(id)) {
                Some(token) => Ok(extend(&mut token.until_ms, until_ms)),
                None if is_full => Err(RevokeError::Full),
                None => {
                    let id: Box<str> = id.as_str().into();
                    self.tokens.insert(hash(&id), RevokedToken { id, until_ms });
                    Ok(true)
                }
            },
            Revoked::TokensOf {
                user,
                issued_before_ms,
            } => {
                let cutoff = Cutoff {
                    issued_before_ms: *issued_before_ms,
                    until_ms,
                };
                self.insert_cutoff(user, cutoff, is_full)
            }
            Revoked::User(user) => match self.users.get_mut(user.as_str()) {
                Some(until) => Ok(extend(until, until_ms)),
                None if is_full => Err(RevokeError::Full),
                None => {
                    self.users.insert(user.as_str().into(), until_ms);
                    Ok(true)
                }
            },
        }
    }

    fn insert_cutoff(
        &mut self,
        user: &str,
        cutoff: Cutoff,
        is_full: bool,
    ) -> Result<bool, RevokeError> {
        let known = self.cutoffs.get(user).map_or(&[][..], Vec::as_slice);
        if known.iter().any(|known| known.covers(&cutoff)) {
            return Ok(false);
        }
        if is_full && !known.iter().any(|known| cutoff.covers(known)) {
            return Err(RevokeError::Full);
        }
        let cutoffs = self.cutoffs.entry(user.into()).or_default();
        let before = cutoffs.len();
        cutoffs.retain(|known| !cutoff.covers(known));
        cutoffs.push(cutoff);
        self.cutoff_count = self.cutoff_count + cutoffs.len() - before;
        Ok(true)
    }

    fn list(&self) -> Vec<Revocation> {
        let tokens = self.tokens.values().map(|token| Revocation {
            of: Revoked::Token(token.id.to_string()),
            until_ms: token.until_ms,
        });
        let cutoffs = self.cutoffs.iter().flat_map(|(user, cutoffs)| {
            cutoffs.iter().map(|cutoff| Revocation {
                of: Revoked::TokensOf {
                    user: user.to_string(),
                    issued_before_ms: cutoff.issued_before_ms,
                },
                until_ms: cutoff.until_ms,
            })
        });
        let users = self.users.iter().map(|(user, until_ms)| Revocation {
            of: Revoked::User(user.to_string()),
            until_ms: *until_ms,
        });
        tokens.chain(cutoffs).chain(users).collect()
    }

    /// The number of those that have not ended at `now`.
    fn count(&self, now: u64) -> usize {
        let tokens = self.tokens.values().map(|token| token.until_ms);
        let cutoffs = self.cutoffs.values().flatten();
        let cutoffs = cutoffs.map(|cutoff| cutoff.until_ms);
        let ends = tokens.chain(cutoffs).chain(self.users.values().copied());
        ends.filter(|until| now < *until).count()
    }

    /// Removes revocations that ended long ago, unless that was done a short time ago; and all that have ended if there is no
    /// room.
    fn make_room(&mut self, now: u64) {
        if now.abs_diff(self.swept_ms) >= SWEEP_INTERVAL_MS {
            self.swept_ms = now;
            self.forget_ended(now.saturating_sub(KEPT_AFTER_END_MS));
        }
        if self.len() >= REVOCATIONS_MAX {
            self.forget_ended(now);
        }
    }

    /// Removes the revocations that had ended at `time`.
    fn forget_ended(&mut self, time: u64) {
        self.tokens.retain(|_, token| time < token.until_ms);
        self.users.retain(|_, until| time < *until);
        self.cutoffs.retain(|_, cutoffs| {
            cutoffs.retain(|cutoff| time < cutoff.until_ms);
            !cutoffs.is_empty()
        });
        self.cutoff_count = self.cutoffs.values().map(Vec::len).sum();
    }
}

/// Moves an end to `until`, unless it is later already. Returns whether it moved.
fn extend(end: &mut u64, until: u64) -> bool {
    let is_later = until > *end;
    *end = until.max(*end);
    is_later
}

/// The hash of a token's ID. The issuer chooses IDs, so nobody can look for two with the same hash.
fn hash(id: &str) -> NonZeroU64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests;

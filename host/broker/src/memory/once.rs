//! The answers of messages that are handled once, in memory, with bounds.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{ONCE_LEASE, OnceClaim, OnceKey, OnceSettlement, OnceState};

/// The bytes that all entries may take, with what is charged for their management.
const BYTES_MAX: usize = 128 << 20;

/// The bytes that the entries of one user, or of one API key, may take. Beyond it, and beyond [`BYTES_MAX`], no message is
/// claimed; answers of claimed ones are kept in any case.
const USER_BYTES_MAX: usize = 8 << 20;
const BACKEND_BYTES_MAX: usize = 32 << 20;

/// The bytes that are charged for an entry in addition to its texts.
const ENTRY_BYTES: usize = 256;

/// The claims and answers of all nodes of one process.
#[derive(Debug, Default)]
pub(super) struct OnceTable(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Arc<str>, OnceEntry>,
    /// The ends of all entries, with their keys.
    ends: BTreeSet<(Instant, Arc<str>)>,
    /// The bytes of each sender.
    scopes: HashMap<Box<str>, usize>,
    bytes: usize,
}

#[derive(Debug)]
struct OnceEntry {
    key: OnceKey,
    fingerprint: String,
    nonce: String,
    answer: Option<String>,
    end: Instant,
    bytes: usize,
}

impl OnceTable {
    /// Claims the message of `claim` if it is neither claimed nor answered.
    pub(super) fn begin(&self, claim: &OnceClaim, now: Instant) -> OnceState {
        let mut entries = self.lock();
        entries.forget_ended(now);
        if let Some(entry) = entries.by_key.get(claim.key.as_str()) {
            return match &entry.answer {
                _ if entry.fingerprint != claim.fingerprint => OnceState::Mismatch,
                Some(answer) => OnceState::Answered(answer.clone()),
                None => OnceState::InProgress,
            };
        }
        if !entries.has_room_for(&claim.key) {
            return OnceState::Full;
        }
        entries.insert(OnceEntry {
            key: claim.key.clone(),
            fingerprint: claim.fingerprint.clone(),
            nonce: claim.nonce.clone(),
            answer: None,
            end: now + ONCE_LEASE,
            bytes: 0,
        });
        OnceState::Claimed
    }

    /// Settles `claim`. Returns `false` if it had ended.
    pub(super) fn settle(
        &self,
        claim: &OnceClaim,
        settlement: OnceSettlement<'_>,
        now: Instant,
    ) -> bool {
        let mut entries = self.lock();
        entries.forget_ended(now);
        let is_claimed = |entry: &OnceEntry| entry.answer.is_none() && entry.nonce == claim.nonce;
        let entry = entries.by_key.get(claim.key.as_str());
        if !entry.is_some_and(is_claimed) {
            return false;
        }
        let Some(mut entry) = entries.remove(claim.key.as_str()) else {
            return false;
        };
        let lasting = |time: Duration| now.checked_add(time).unwrap_or(now + ONCE_LEASE);
        match settlement {
            OnceSettlement::Renew => entry.end = lasting(ONCE_LEASE),
            OnceSettlement::Keep { answer, time } => {
                entry.answer = Some(answer.to_owned());
                entry.end = lasting(time);
            }
            OnceSettlement::Release => return true,
        }
        entries.insert(entry);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn has_room_for(&self, key: &OnceKey) -> bool {
        let most = if key.is_user() {
            USER_BYTES_MAX
        } else {
            BACKEND_BYTES_MAX
        };
        let of_sender = self.scopes.get(key.scope()).copied().unwrap_or_default();
        self.bytes < BYTES_MAX && of_sender < most
    }

    fn insert(&mut self, mut entry: OnceEntry) {
        // The text of the key is in the map and in the entry.
        let texts = 2 * entry.key.as_str().len()
            + entry.fingerprint.len()
            + entry.nonce.len()
            + entry.answer.as_ref().map_or(0, String::len);
        entry.bytes = ENTRY_BYTES + texts;
        self.bytes += entry.bytes;
        *self.scopes.entry(entry.key.scope().into()).or_default() += entry.bytes;
        let key: Arc<str> = entry.key.as_str().into();
        self.ends.insert((entry.end, key.clone()));
        self.by_key.insert(key, entry);
    }

    fn remove(&mut self, key: &str) -> Option<OnceEntry> {
        let (key, entry) = self.by_key.remove_entry(key)?;
        self.ends.remove(&(entry.end, key));
        self.bytes -= entry.bytes;
        if let Some(bytes) = self.scopes.get_mut(entry.key.scope()) {
            *bytes -= entry.bytes;
            if *bytes == 0 {
                self.scopes.remove(entry.key.scope());
            }
        }
        Some(entry)
    }

    fn forget_ended(&mut self, now: Instant) {
        while let Some((end, key)) = self.ends.first()
            && *end <= now
        {
            let key = key.clone();
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn claim(user: &str, id: &str, nonce: &str) -> OnceClaim {
        OnceClaim {
            key: OnceKey::of_user(user, id),
            fingerprint: "f".to_owned(),
            nonce: nonce.to_owned(),
        }
    }

    fn keep(answer: &str) -> OnceSettlement<'_> {
        OnceSettlement::Keep {
            answer,
            time: MINUTE,
        }
    }

    #[test]
    fn everything_is_forgotten_at_its_end() {
        let (table, start) = (OnceTable::default(), Instant::now());
        let answered = claim("ann", "1", "a");
        assert_eq!(table.begin(&answered, start), OnceState::Claimed);
        assert!(table.settle(&answered, keep("yes"), start));
        let claimed = claim("ann", "2", "b");
        assert_eq!(table.begin(&claimed, start), OnceState::Claimed);
        let late = start + ONCE_LEASE;
        assert!(!table.settle(&claimed, keep("late"), late));
        let yes = OnceState::Answered("yes".to_owned());
        assert_eq!(table.begin(&answered, late), yes);
        assert_eq!(table.begin(&answered, start + MINUTE), OnceState::Claimed);
        table.settle(&answered, OnceSettlement::Release, start + MINUTE);
        let entries = table.lock();
        assert!(entries.by_key.is_empty() && entries.ends.is_empty());
        assert!(entries.scopes.is_empty() && entries.bytes == 0);
    }

    #[test]
    fn a_sender_that_exceeds_its_share_is_refused_and_others_are_not() {
        let (table, start) = (OnceTable::default(), Instant::now());
        let large = "x".repeat(USER_BYTES_MAX / 4);
        let mut kept = 0;
        loop {
            let claim = claim("ann", &kept.to_string(), "a");
            match table.begin(&claim, start) {
                OnceState::Claimed => assert!(table.settle(&claim, keep(&large), start)),
                OnceState::Full => break,
                other => panic!("{other:?}"),
            }
            kept += 1;
        }
        assert_eq!(kept, 4);
        // Answers that are kept are still repeated.
        let again = table.begin(&claim("ann", "0", "b"), start);
        assert_eq!(again, OnceState::Answered(large));
        assert_eq!(
            table.begin(&claim("bob", "0", "c"), start),
            OnceState::Claimed
        );
        let later = start + MINUTE;
        assert_eq!(
            table.begin(&claim("ann", "9", "d"), later),
            OnceState::Claimed
        );
    }
}

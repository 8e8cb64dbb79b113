//! Recognises messages that come twice: once published, and once forwarded by a server that the user has left.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::waiting::HOLD;

/// How long after a message its duplicate may come: each of the two may have been held.
const FORGOTTEN_AFTER: Duration = HOLD.saturating_mul(2);

/// The most messages that are remembered; beyond it the oldest is forgotten.
const REMEMBERED_MAX: usize = 65_536;

/// How a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Published,
    /// Another server forwarded it.
    Forwarded,
    /// This server had passed it on, and it followed the user back here.
    Returned,
}

/// The messages that may come twice, by identity. A message that carries a mark and was not forwarded is not among them: a
/// server that forwards it knows which servers have it.
#[derive(Debug, Default)]
pub(super) struct Deduplicator(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// How the last one of each came that was no duplicate.
    messages: HashMap<u64, Arrival>,
    order: VecDeque<(u64, Instant)>,
}

impl Deduplicator {
    /// Notes a message, and returns whether it is the duplicate of an earlier one. Two equal messages that were both
    /// published directly are two messages. A message returns once.
    pub(super) fn is_double(&self, identity: u64, way: Arrival) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget_old();
        let before = seen.messages.get(&identity).copied();
        let is_double = match way {
            Arrival::Published => before.is_some_and(|before| before != Arrival::Published),
            Arrival::Forwarded => before.is_some(),
            Arrival::Returned => before == Some(Arrival::Returned),
        };
        if !is_double {
            seen.messages.insert(identity, way);
        }
        if before.is_none() {
            seen.order.push_back((identity, Instant::now()));
        }
        is_double
    }
}

impl Seen {
    fn forget_old(&mut self) {
        while let Some((identity, at)) = self.order.front()
            && (self.order.len() >= REMEMBERED_MAX || at.elapsed() > FORGOTTEN_AFTER)
        {
            self.messages.remove(identity);
            self.order.pop_front();
        }
    }
}

/// A hash that identifies a message.
pub(super) fn identity(message: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_forwarded_and_published_comes_once_in_either_order() {
        let deduplicator = Deduplicator::default();
        assert!(!deduplicator.is_double(1, Arrival::Published));
        assert!(!deduplicator.is_double(1, Arrival::Published), "sent twice");
        assert!(deduplicator.is_double(1, Arrival::Forwarded));
        assert!(!deduplicator.is_double(2, Arrival::Forwarded));
        assert!(
            deduplicator.is_double(2, Arrival::Forwarded),
            "two forwarded it"
        );
        assert!(deduplicator.is_double(2, Arrival::Published));
        tokio::time::advance(FORGOTTEN_AFTER + Duration::from_secs(1)).await;
        assert!(!deduplicator.is_double(2, Arrival::Forwarded), "forgotten");
    }

    #[test]
    fn a_message_that_follows_its_user_back_is_no_double_once() {
        for first in [None, Some(Arrival::Published), Some(Arrival::Forwarded)] {
            let deduplicator = Deduplicator::default();
            if let Some(first) = first {
                assert!(!deduplicator.is_double(1, first));
            }
            assert!(
                !deduplicator.is_double(1, Arrival::Returned),
                "after {first:?}"
            );
            for way in [Arrival::Returned, Arrival::Forwarded, Arrival::Published] {
                assert!(deduplicator.is_double(1, way), "{way:?} after {first:?}");
            }
        }
    }
}

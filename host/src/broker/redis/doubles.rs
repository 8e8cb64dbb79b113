//! Messages that may come twice: once published, and once forwarded by a server whose user had moved here.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::held::HOLD;

/// How long after a message its double may come: as long as it may be held, on each way.
const FORGOTTEN_AFTER: Duration = HOLD.saturating_mul(2);

/// Messages that are remembered; over it the oldest is forgotten.
const REMEMBERED_MAX: usize = 65_536;

/// Which messages came that may come twice, by their identity. A message that carries a mark and was not forwarded is
/// none of them: whoever forwards it knows who has it.
#[derive(Debug, Default)]
pub(super) struct Doubles(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Whether it was forwarded.
    messages: HashMap<u64, bool>,
    order: VecDeque<(u64, Instant)>,
}

impl Doubles {
    /// Notes a message, and says whether it is the double of one that came before. Two that were published directly
    /// and are equal are two messages.
    pub(super) fn is_double(&self, identity: u64, forwarded: bool) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget_old();
        match seen.messages.get(&identity) {
            Some(was_forwarded) if forwarded || *was_forwarded => true,
            Some(_) => false,
            None => {
                seen.messages.insert(identity, forwarded);
                seen.order.push_back((identity, Instant::now()));
                false
            }
        }
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

/// Identifies a message.
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
        let doubles = Doubles::default();
        assert!(!doubles.is_double(1, false));
        assert!(!doubles.is_double(1, false), "sent twice");
        assert!(doubles.is_double(1, true));
        assert!(!doubles.is_double(2, true));
        assert!(doubles.is_double(2, true), "two servers forwarded it");
        assert!(doubles.is_double(2, false));
        tokio::time::advance(FORGOTTEN_AFTER + Duration::from_secs(1)).await;
        assert!(!doubles.is_double(2, true), "forgotten");
    }
}

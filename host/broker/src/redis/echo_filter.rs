//! A node receives its own broadcasts too. Its clients got them directly, so they are recognised and ignored.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::deduplicator::identity;

/// How long a broadcast may take to come back. One that Redis took but never handed out is forgotten after it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The most broadcasts that are waited for; beyond it the oldest is forgotten.
const WAITING_MAX: usize = 65_536;

/// The broadcasts of this node that have not come back yet, by a hash of their bytes: those carry the sender and the
/// time to the microsecond. Two equal ones count as two.
#[derive(Debug, Default)]
pub(super) struct EchoFilter(Mutex<VecDeque<(u64, Instant)>>);

impl EchoFilter {
    /// Must be called before the frame is published.
    pub(super) fn note(&self, frame: &str) {
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |(_, at): &(u64, Instant)| now.duration_since(*at) > FORGOTTEN_AFTER;
        while waiting.len() >= WAITING_MAX || waiting.front().is_some_and(is_over) {
            waiting.pop_front();
        }
        waiting.push_back((identity(frame), now));
    }

    /// Whether `frame` is a broadcast of this node that came back. It is forgotten then.
    pub(super) fn take(&self, frame: &str) -> bool {
        let identity = identity(frame);
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // They come back in order, so the first look mostly finds it.
        let found = waiting.iter().position(|(waiting, _)| *waiting == identity);
        found.is_some_and(|index| waiting.remove(index).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_own_broadcast_is_recognised_once() {
        let own = EchoFilter::default();
        own.note("a");
        own.note("a");
        assert!(own.take("a") && own.take("a") && !own.take("a"));
        own.note("b");
        tokio::time::advance(FORGOTTEN_AFTER + Duration::from_secs(1)).await;
        own.note("c");
        assert!(!own.take("b") && own.take("c"));
    }
}

//! Metrics of webhooks, by their labels.

use std::sync::Arc;

use super::{
    cells::{Counter, Gauge},
    named::{Named, OTHER},
};

/// Maximum number of webhooks that are counted separately, including those that were removed.
const WEBHOOKS_MAX: usize = 64;

/// Why an event for a webhook was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventDropReason {
    /// The queue was full, and this was the oldest event in it.
    QueueFull,
    /// The queue in Redis could not be reached for so long that too many events waited for it.
    QueueUnavailable,
    /// The webhook was removed from the configuration, and its queue was in memory.
    Removed,
    /// The process ended, and with it the queue in its memory, or the wait for the queue in Redis.
    Shutdown,
}

/// The metrics of one webhook.
#[derive(Debug, Default)]
pub struct WebhookMetrics {
    /// Events that the receiver accepted.
    pub sent: Counter,
    /// Requests that it did not accept, or not in time.
    pub attempts_failed: Counter,
    /// Events that wait, as this node last saw it.
    pub queued: Gauge,
    /// How long the oldest of them has waited, in milliseconds, as this node last saw it.
    pub oldest_ms: Gauge,
    dropped: [Counter; EventDropReason::ALL.len()],
}

/// The metrics of all webhooks. Those of a webhook that was removed stay, because counters must not go backwards.
#[derive(Debug, Default)]
pub struct WebhookTable {
    known: Named<Arc<WebhookMetrics>, WEBHOOKS_MAX>,
    other: Arc<WebhookMetrics>,
}

impl EventDropReason {
    const ALL: [Self; 4] = [
        Self::QueueFull,
        Self::QueueUnavailable,
        Self::Removed,
        Self::Shutdown,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::QueueUnavailable => "queue_unavailable",
            Self::Removed => "removed",
            Self::Shutdown => "shutdown",
        }
    }
}

impl WebhookMetrics {
    /// The events that were dropped for `reason`.
    pub fn dropped(&self, reason: EventDropReason) -> &Counter {
        &self.dropped[reason as usize]
    }

    pub(super) fn dropped_by_reason(&self) -> Vec<(String, u64)> {
        EventDropReason::ALL
            .into_iter()
            .map(|reason| (reason.as_str().to_owned(), self.dropped(reason).get()))
            .collect()
    }
}

impl WebhookTable {
    /// The metrics of the webhook with this label, which are created if they are missing.
    pub fn of(&self, label: &str) -> Arc<WebhookMetrics> {
        self.known
            .get_or_make(label, Arc::default, Arc::clone)
            .unwrap_or_else(|| self.other.clone())
    }

    /// The metrics of all webhooks, by label.
    pub(super) fn all(&self) -> Vec<(String, Arc<WebhookMetrics>)> {
        let known = self.known.all();
        let mut all: Vec<_> = known
            .iter()
            .map(|(label, metrics)| (label.to_string(), Arc::<WebhookMetrics>::clone(metrics)))
            .collect();
        if known.len() >= WEBHOOKS_MAX {
            all.push((OTHER.to_owned(), self.other.clone()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_beyond_the_bound_are_counted_together() {
        let table = WebhookTable::default();
        assert_eq!(table.all().len(), 0);
        for number in 0..=WEBHOOKS_MAX + 1 {
            table.of(&format!("host{number}")).sent.increment();
        }
        let all = table.all();
        assert_eq!(all.len(), WEBHOOKS_MAX + 1);
        let (label, other) = &all[WEBHOOKS_MAX];
        assert_eq!((label.as_str(), other.sent.get()), (OTHER, 2));
    }
}

//! Events of this node on their way to the queues.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use signalbox_telemetry::{
    metrics::EventDropReason,
    supervise::{self, OwnedTask},
};
use tokio::{sync::Notify, time::sleep};
use tracing::{info, warn};

use super::{QueuedEvent, Shared, hooks::Hook, lock};

/// The most events that wait. Beyond it the oldest are dropped.
const EVENTS_MAX: usize = 10_000;

/// The most events that are put into the queues at once, and the bytes of their texts unless the first is larger.
const BATCH: (usize, usize) = (256, 1 << 20);

/// Pause after the queues could not be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The events that are not in the queues yet.
#[derive(Default)]
pub(crate) struct EventBuffer {
    waiting: Mutex<WaitingEvents>,
    added: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct WaitingEvents {
    events: VecDeque<WaitingEvent>,
    /// The number of the first of `events`; they are counted from the start.
    first: u64,
}

struct WaitingEvent {
    event: QueuedEvent,
    hooks: Vec<Arc<Hook>>,
}

impl EventBuffer {
    /// Adds an event for the queues of `hooks`.
    pub(crate) fn add(&self, text: String, hooks: Vec<Arc<Hook>>) {
        let event = QueuedEvent {
            text,
            queues: hooks.iter().map(|hook| hook.address()).collect(),
            change: None,
        };
        let mut waiting = lock(&self.waiting);
        waiting.events.push_back(WaitingEvent { event, hooks });
        let oldest = if waiting.events.len() > EVENTS_MAX {
            waiting.first += 1;
            waiting.events.pop_front()
        } else {
            None
        };
        drop(waiting);
        self.added.notify_one();
        if let Some(oldest) = oldest {
            oldest.count_dropped(EventDropReason::QueueUnavailable);
        }
    }

    /// Returns when all events are in the queues.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if lock(&self.waiting).events.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Drops all events, and counts them.
    pub(crate) fn give_up(&self) {
        let events = std::mem::take(&mut lock(&self.waiting).events);
        for event in events {
            event.count_dropped(EventDropReason::Shutdown);
        }
    }

    /// The oldest events, and the number of the first one.
    fn oldest(&self) -> (u64, Vec<QueuedEvent>) {
        let waiting = lock(&self.waiting);
        let (events_max, bytes_max) = BATCH;
        let mut bytes = 0;
        let mut events: Vec<QueuedEvent> = Vec::new();
        for WaitingEvent { event, .. } in waiting.events.iter().take(events_max) {
            bytes += event.text.len();
            if !events.is_empty() && bytes > bytes_max {
                break;
            }
            events.push(event.clone());
        }
        (waiting.first, events)
    }

    /// Removes `count` events from number `first` on, as far as they were not dropped meanwhile.
    fn remove(&self, first: u64, count: usize) {
        let mut waiting = lock(&self.waiting);
        let gone = waiting.first.saturating_sub(first);
        let count = (count as u64).saturating_sub(gone);
        waiting.first += count;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let count = count.min(waiting.events.len());
        waiting.events.drain(..count);
        let is_empty = waiting.events.is_empty();
        drop(waiting);
        if is_empty {
            self.emptied.notify_waiters();
        }
    }
}

impl WaitingEvent {
    fn count_dropped(&self, reason: EventDropReason) {
        for hook in &self.hooks {
            hook.count_dropped(reason, 1);
        }
    }
}

/// Starts to put events into the queues.
pub(crate) fn start(shared: &Arc<Shared>) -> OwnedTask {
    let state = shared.clone();
    supervise::spawn("events of webhooks", &shared.metrics, state, |shared| {
        fill_queues(shared).boxed()
    })
    .into()
}

async fn fill_queues(shared: &Shared) {
    let mut is_down = false;
    loop {
        let (first, events) = shared.buffer.oldest();
        if events.is_empty() {
            shared.buffer.added.notified().await;
            continue;
        }
        match shared.push(&events).await {
            Ok(_) => {
                if std::mem::take(&mut is_down) {
                    info!("events of webhooks are queued again");
                }
                shared.buffer.remove(first, events.len());
            }
            Err(error) => {
                if !std::mem::replace(&mut is_down, true) {
                    warn!(%error, "events of webhooks cannot be queued; they wait");
                }
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use signalbox_config::WebhookEvent;

    use super::*;
    use crate::hooks::tests::hook;

    #[test]
    fn the_oldest_events_are_dropped_and_counted_and_those_under_way_are_removed_once() {
        let buffer = EventBuffer::default();
        let hook = hook("http://a", &[WebhookEvent::Connected], &[]);
        let add = |number: usize| buffer.add(number.to_string(), vec![hook.clone()]);
        (0..EVENTS_MAX).for_each(add);
        let (first, under_way) = buffer.oldest();
        assert_eq!((first, under_way.len()), (0, 256));
        (EVENTS_MAX..EVENTS_MAX + 10).for_each(add);
        let dropped = |reason| hook.settings().metrics.dropped(reason).get();
        assert_eq!(dropped(EventDropReason::QueueUnavailable), 10);
        buffer.remove(first, under_way.len());
        let (first, next) = buffer.oldest();
        assert_eq!((first, next[0].text.as_str()), (256, "256"));
        buffer.give_up();
        let rest = EVENTS_MAX - 246;
        assert_eq!(dropped(EventDropReason::Shutdown), rest as u64);
    }
}

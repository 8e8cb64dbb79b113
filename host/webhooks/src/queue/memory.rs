//! Queues in the memory of this process.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use tokio::time::Instant;

use super::{
    BATCH_BYTES_MAX, BatchClaim, CLAIM_TIME, EventBatch, EventQueue, NextEvents, OccupancyChange,
    Pushed, QueueState, QueueUnavailable, QueuedEvent, ReportedPage, TrimmedQueue,
};

/// An [`EventQueue`] that ends with the process.
#[derive(Default)]
pub struct MemoryQueue(Mutex<MemoryQueues>);

#[derive(Default)]
struct MemoryQueues {
    queues: HashMap<String, OneQueue>,
    reported: HashSet<String>,
}

#[derive(Default)]
struct OneQueue {
    events: VecDeque<(Instant, String)>,
    /// The number of the first of `events`; they are counted from the start.
    first: u64,
    /// The batch that is being sent, and the number of the event after it.
    batch: Option<(String, u64)>,
    /// The task that may send, and until when.
    sender: Option<(String, Instant)>,
}

impl OneQueue {
    fn add(&mut self, text: &str, length_max: usize) -> usize {
        self.events.push_back((Instant::now(), text.to_owned()));
        let dropped = self.events.len().saturating_sub(length_max);
        self.remove(dropped);
        dropped
    }

    fn remove(&mut self, count: usize) {
        self.events.drain(..count);
        self.first += count as u64;
    }

    fn claim(&mut self, claim: BatchClaim<'_>) -> QueueState {
        let now = Instant::now();
        let oldest = self.events.front().map(|(since, _)| now - *since);
        QueueState {
            length: self.events.len(),
            oldest: oldest.unwrap_or_default(),
            next: self.next(claim, now, oldest),
        }
    }

    fn next(
        &mut self,
        claim: BatchClaim<'_>,
        now: Instant,
        oldest: Option<Duration>,
    ) -> NextEvents {
        if let Some((sender, until)) = &self.sender
            && sender != claim.sender
            && *until > now
        {
            return NextEvents::OfAnother(*until - now);
        }
        self.sender = None;
        let Some(oldest) = oldest else {
            self.batch = None;
            return NextEvents::None;
        };
        let unfinished = self.batch.take().filter(|(_, end)| *end > self.first);
        let (id, end) = match unfinished {
            Some(batch) => batch,
            None if self.events.len() < claim.batch_max && oldest < claim.batch_time => {
                return NextEvents::Later(claim.batch_time - oldest);
            }
            None => (claim.batch_id.to_owned(), self.first + self.count(claim)),
        };
        self.batch = Some((id.clone(), end));
        self.sender = Some((claim.sender.to_owned(), now + CLAIM_TIME));
        let count = usize::try_from(end - self.first).unwrap_or(usize::MAX);
        let events = self.events.iter().take(count);
        NextEvents::Batch(EventBatch {
            id,
            events: events.map(|(_, text)| text.clone()).collect(),
        })
    }

    /// The number of events for a new batch, at least one.
    fn count(&self, claim: BatchClaim<'_>) -> u64 {
        let mut bytes = 0;
        let events = self.events.iter().take(claim.batch_max);
        let fitting = events.take_while(|(_, text)| {
            bytes += text.len();
            bytes <= BATCH_BYTES_MAX
        });
        fitting.count().max(1) as u64
    }

    fn is_sender(&self, sender: &str) -> bool {
        let current = self.sender.as_ref();
        current.is_some_and(|(current, until)| current == sender && *until > Instant::now())
    }
}

impl MemoryQueue {
    fn lock(&self) -> MutexGuard<'_, MemoryQueues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, queue: &str, act: impl FnOnce(&mut OneQueue) -> T) -> T {
        let mut queues = self.lock();
        if let Some(queue) = queues.queues.get_mut(queue) {
            return act(queue);
        }
        act(queues.queues.entry(queue.to_owned()).or_default())
    }

    fn push_now(&self, events: &[QueuedEvent]) -> Pushed {
        let mut pushed = Pushed::default();
        let mut queues = self.lock();
        let queues = &mut *queues;
        for event in events {
            let is_news = match &event.change {
                None => true,
                Some(OccupancyChange::Came(name)) => queues.reported.insert(name.clone()),
                Some(OccupancyChange::Went(name)) => queues.reported.remove(name),
            };
            pushed.added.push(is_news);
            for address in event.queues.iter().filter(|_| is_news) {
                let queue = queues.queues.entry(address.queue.to_string()).or_default();
                let dropped = queue.add(&event.text, address.length_max);
                let length = queue.events.len();
                let mut known = pushed.queues.iter_mut();
                match known.find(|trimmed| trimmed.queue == address.queue) {
                    Some(trimmed) => {
                        trimmed.dropped += dropped;
                        trimmed.length = length;
                    }
                    None => pushed.queues.push(TrimmedQueue {
                        queue: address.queue.clone(),
                        dropped,
                        length,
                    }),
                }
            }
        }
        pushed
    }
}

impl EventQueue for MemoryQueue {
    fn push<'a>(
        &'a self,
        events: &'a [QueuedEvent],
    ) -> BoxFuture<'a, Result<Pushed, QueueUnavailable>> {
        future::ready(Ok(self.push_now(events))).boxed()
    }

    fn claim<'a>(
        &'a self,
        claim: BatchClaim<'a>,
    ) -> BoxFuture<'a, Result<QueueState, QueueUnavailable>> {
        let state = self.with(claim.queue, |queue| queue.claim(claim));
        future::ready(Ok(state)).boxed()
    }

    fn renew<'a>(
        &'a self,
        queue: &'a str,
        sender: &'a str,
    ) -> BoxFuture<'a, Result<bool, QueueUnavailable>> {
        let renewed = self.with(queue, |queue| {
            let is_sender = queue.is_sender(sender);
            if is_sender {
                queue.sender = Some((sender.to_owned(), Instant::now() + CLAIM_TIME));
            }
            is_sender
        });
        future::ready(Ok(renewed)).boxed()
    }

    fn finish<'a>(
        &'a self,
        queue: &'a str,
        batch_id: &'a str,
    ) -> BoxFuture<'a, Result<(), QueueUnavailable>> {
        self.with(queue, |queue| {
            let current = queue.batch.take_if(|(id, _)| id == batch_id);
            if let Some((_, end)) = current {
                let sent = usize::try_from(end.saturating_sub(queue.first)).unwrap_or(usize::MAX);
                queue.remove(sent.min(queue.events.len()));
            }
        });
        future::ready(Ok(())).boxed()
    }

    fn release<'a>(
        &'a self,
        queue: &'a str,
        sender: &'a str,
    ) -> BoxFuture<'a, Result<(), QueueUnavailable>> {
        self.with(queue, |queue| {
            if queue.is_sender(sender) {
                queue.sender = None;
            }
        });
        future::ready(Ok(())).boxed()
    }

    fn reported(&self, _: u64) -> BoxFuture<'_, Result<ReportedPage, QueueUnavailable>> {
        let page = ReportedPage {
            names: self.lock().reported.iter().cloned().collect(),
            next: 0,
        };
        future::ready(Ok(page)).boxed()
    }

    fn outlives_process(&self) -> bool {
        false
    }

    fn discard(&self, queue: &str) -> usize {
        let discarded = self.lock().queues.remove(queue);
        discarded.map_or(0, |queue| queue.events.len())
    }
}

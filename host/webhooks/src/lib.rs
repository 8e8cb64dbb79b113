//! Events for backends: who connected, which rooms are in use, who is in them, and which messages reached nobody.
//!
//! [`Webhooks`] takes events from sessions, and [`WatchedRooms`] notices changes of rooms. Both put them into an
//! [`EventQueue`], one queue for each webhook: in memory, or in Redis, where it is shared by all nodes and survives each of
//! them. [`sender`] sends what waits, one batch after another: one node at a time sends for a webhook, and a batch leaves the
//! queue only when the receiver has accepted it. So events arrive at least once, and those of one queue in order.
//!
//! Without webhooks an event costs one relaxed load.

mod backoff;
mod buffer;
mod event;
mod hooks;
mod post;
mod queue;
mod rooms;
mod sender;
mod signature;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
#[cfg(feature = "redis")]
pub use queue::RedisQueue;
pub use queue::{
    BatchClaim, EventBatch, EventQueue, MemoryQueue, NextEvents, OccupancyChange, Pushed,
    QueueAddress, QueueState, QueueUnavailable, QueuedEvent, ReportedPage, TrimmedQueue,
};
pub use rooms::WatchedRooms;
use signalbox_broker::Broker;
use signalbox_config::{WebhookConfig, WebhookEvent};
use signalbox_protocol::{ClientInfo, outbound::Delivery};
use signalbox_router::LocalTable;
use signalbox_telemetry::{
    metrics::{EventDropReason, Metrics},
    supervise::OwnedTask,
};
use tokio::time::{Instant, timeout_at};

use self::{
    buffer::EventBuffer,
    event::{EventDetail, EventSource},
    hooks::{Hook, HookTable},
    rooms::RoomWatcher,
    sender::SenderTask,
};

/// The largest payload of a message that is part of an event, in bytes. Larger ones are left out.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// The webhooks of a node.
pub struct Webhooks {
    shared: Arc<Shared>,
    rooms: Arc<WatchedRooms>,
    buffer: OwnedTask,
    watcher: Mutex<Option<RoomWatcher>>,
    senders: Mutex<Senders>,
}

/// The tasks that send, and the settings that they follow.
#[derive(Default)]
struct Senders {
    tasks: Vec<SenderTask>,
    webhooks: Vec<WebhookConfig>,
    grace: Duration,
}

/// The parts that all tasks of webhooks share.
struct Shared {
    hooks: Arc<HookTable>,
    source: EventSource,
    queue: Arc<dyn EventQueue>,
    buffer: EventBuffer,
    metrics: Arc<Metrics>,
}

impl Webhooks {
    /// Webhooks that are none until [`Webhooks::set`]. `node` is the ID of this boot of the node.
    pub fn start(node: &str, queue: Arc<dyn EventQueue>, metrics: &Arc<Metrics>) -> Self {
        let hooks = Arc::<HookTable>::default();
        let shared = Arc::new(Shared {
            hooks: hooks.clone(),
            source: EventSource::new(node),
            queue,
            buffer: EventBuffer::default(),
            metrics: metrics.clone(),
        });
        Self {
            buffer: buffer::start(&shared),
            rooms: Arc::new(WatchedRooms::new(hooks)),
            watcher: Mutex::default(),
            senders: Mutex::default(),
            shared,
        }
    }

    /// The observer of the table of connections.
    pub fn rooms(&self) -> Arc<WatchedRooms> {
        self.rooms.clone()
    }

    /// Begins to report changes of rooms. `table` is observed by [`Webhooks::rooms`].
    pub fn watch(&self, table: Arc<LocalTable>, broker: Arc<dyn Broker>) {
        let watcher = RoomWatcher::start(&self.shared, self.rooms.clone(), table, broker);
        *lock(&self.watcher) = Some(watcher);
    }

    /// Replaces the webhooks. A webhook with the URL of an earlier one keeps its queue. `grace` is the time from the last
    /// member of a room, or the last connection of a user in it, to the report.
    pub fn set(&self, webhooks: &[WebhookConfig], grace: Duration) {
        let mut senders = lock(&self.senders);
        if senders.webhooks == webhooks && senders.grace == grace {
            return;
        }
        senders.webhooks = webhooks.to_vec();
        senders.grace = grace;
        let tasks = &mut senders.tasks;
        for removed in tasks.extract_if(.., |task| !task.is_for(webhooks)) {
            removed.remove();
        }
        for config in webhooks {
            match tasks.iter().find(|task| task.hook().is_at(&config.url)) {
                Some(task) => task.hook().set(config, &self.shared.metrics),
                None => {
                    let hook = Arc::new(Hook::new(config, &self.shared.metrics));
                    tasks.push(SenderTask::start(&self.shared, hook));
                }
            }
        }
        let hooks = tasks.iter().map(|task| task.hook().clone());
        self.shared.hooks.set(hooks.collect());
        self.rooms.settings_changed(grace);
    }

    /// Reports a connection that can be reached from now on.
    pub fn connected(&self, client: &ClientInfo) {
        self.report(WebhookEvent::Connected, None, || EventDetail {
            user_id: Some(&client.user),
            connection_id: Some(&client.connection),
            ..EventDetail::default()
        });
    }

    /// Reports that a connection ended, with the code and the reason of the close.
    pub fn disconnected(&self, client: &ClientInfo, code: u16, reason: &str) {
        self.report(WebhookEvent::Disconnected, None, || EventDetail {
            user_id: Some(&client.user),
            connection_id: Some(&client.connection),
            code: Some(code),
            reason: Some(reason),
            ..EventDetail::default()
        });
    }

    /// Reports a message that reached nobody.
    pub fn undelivered(&self, message: &Delivery<'_>) {
        let event = WebhookEvent::Undelivered;
        if !self.shared.hooks.wants(event) {
            return;
        }
        let is_too_large = message.payload.len() > PAYLOAD_BYTES_MAX;
        let frame = Delivery {
            payload: if is_too_large {
                "null"
            } else {
                message.payload
            },
            ..*message
        }
        .encode();
        self.report(event, message.room, || EventDetail {
            message: serde_json::from_str(frame.as_str()).ok(),
            payload_omitted: is_too_large,
            ..EventDetail::default()
        });
    }

    /// Sends the events that wait, until `by` at the latest, and ends all tasks. Events that end with this process are counted.
    pub async fn finish(&self, by: Instant) {
        let watcher = lock(&self.watcher).take();
        if let Some(watcher) = watcher {
            watcher.finish(by).await;
        }
        let _ = timeout_at(by, self.shared.buffer.emptied()).await;
        self.buffer.end();
        let senders = std::mem::take(&mut lock(&self.senders).tasks);
        let hooks: Vec<_> = senders.iter().map(|sender| sender.hook().clone()).collect();
        join_all(senders.into_iter().map(|sender| sender.finish(by))).await;
        self.shared.buffer.give_up();
        for hook in hooks {
            let lost = self.shared.queue.discard(hook.queue());
            hook.count_dropped(EventDropReason::Shutdown, lost);
        }
    }

    fn report<'d>(
        &self,
        event: WebhookEvent,
        room: Option<&str>,
        detail: impl FnOnce() -> EventDetail<'d>,
    ) {
        let shared = &self.shared;
        if !shared.hooks.wants(event) {
            return;
        }
        let hooks = shared.hooks.of(event, room);
        if !hooks.is_empty() {
            let text = shared.source.encode(event, detail());
            shared.buffer.add(text, hooks);
        }
    }
}

impl Shared {
    /// Puts events into the queues, and wakes their senders. Returns which of them were put there: a change that was reported
    /// before is not.
    async fn push(&self, events: &[QueuedEvent]) -> Result<Vec<bool>, QueueUnavailable> {
        let Pushed { added, queues } = self.queue.push(events).await?;
        let hooks = self.hooks.all();
        for TrimmedQueue {
            queue,
            dropped,
            length,
        } in queues
        {
            if let Some(hook) = hooks.iter().find(|hook| *hook.queue() == queue) {
                hook.count_dropped(EventDropReason::QueueFull, dropped);
                hook.note_length(length);
                hook.wake();
            }
        }
        Ok(added)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

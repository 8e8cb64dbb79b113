//! The webhooks, and which of them want an event.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use signalbox_config::{WebhookConfig, WebhookEvent};
use signalbox_telemetry::metrics::{EventDropReason, Metrics, WebhookMetrics};
use tokio::sync::Notify;

use super::QueueAddress;

/// A webhook, with its queue.
pub(crate) struct Hook {
    queue: Arc<str>,
    settings: ArcSwap<HookSettings>,
    added: Notify,
}

/// The current settings of a webhook.
#[derive(Clone)]
pub(crate) struct HookSettings {
    pub(crate) config: WebhookConfig,
    pub(crate) metrics: Arc<WebhookMetrics>,
}

/// The webhooks of a node.
#[derive(Default)]
pub(crate) struct HookTable {
    /// A bit for each event that any webhook wants.
    wanted: AtomicU8,
    hooks: ArcSwap<Vec<Arc<Hook>>>,
}

impl Hook {
    pub(crate) fn new(config: &WebhookConfig, metrics: &Metrics) -> Self {
        Self {
            queue: queue_name(&config.url),
            settings: ArcSwap::from_pointee(HookSettings::new(config, metrics)),
            added: Notify::new(),
        }
    }

    /// The name of its queue, the same on all nodes.
    pub(crate) fn queue(&self) -> &Arc<str> {
        &self.queue
    }

    /// Its queue, and the most events in it.
    pub(crate) fn address(&self) -> QueueAddress {
        QueueAddress {
            queue: self.queue.clone(),
            length_max: self.settings.load().config.queue_max,
        }
    }

    pub(crate) fn is_at(&self, url: &str) -> bool {
        self.settings.load().config.url == url
    }

    /// Replaces its settings; the URL is the same.
    pub(crate) fn set(&self, config: &WebhookConfig, metrics: &Metrics) {
        self.settings
            .store(Arc::new(HookSettings::new(config, metrics)));
        self.wake();
    }

    pub(crate) fn settings(&self) -> Arc<HookSettings> {
        self.settings.load_full()
    }

    /// There may be something to send.
    pub(crate) fn wake(&self) {
        self.added.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.added.notified().await;
    }

    pub(crate) fn count_dropped(&self, reason: EventDropReason, events: usize) {
        if events > 0 {
            let settings = self.settings.load();
            settings.metrics.dropped(reason).add(events as u64);
        }
    }

    pub(crate) fn note_length(&self, length: usize) {
        let metrics = &self.settings.load().metrics;
        metrics.queued.set(length as i64);
    }

    pub(crate) fn note_oldest(&self, waited: Duration) {
        let metrics = &self.settings.load().metrics;
        metrics.oldest_ms.set(waited.as_millis() as i64);
    }

    fn wants(&self, event: WebhookEvent, room: Option<&str>) -> bool {
        let config = &self.settings.load().config;
        config.events.contains(&event) && room.is_none_or(|room| config.is_for_room(room))
    }
}

impl HookSettings {
    fn new(config: &WebhookConfig, metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.webhooks.of(&config.label),
            config: config.clone(),
        }
    }
}

impl HookTable {
    pub(crate) fn set(&self, hooks: Vec<Arc<Hook>>) {
        let wanted = hooks.iter().fold(0, |bits, hook| {
            let config = &hook.settings.load().config;
            config
                .events
                .iter()
                .fold(bits, |bits, event| bits | bit(*event))
        });
        self.hooks.store(Arc::new(hooks));
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether any webhook wants `event` about some room or user.
    pub(crate) fn wants(&self, event: WebhookEvent) -> bool {
        self.wanted.load(Ordering::Relaxed) & bit(event) != 0
    }

    /// Whether any webhook wants either of two events.
    pub(crate) fn wants_any(&self, [one, other]: [WebhookEvent; 2]) -> bool {
        self.wanted.load(Ordering::Relaxed) & (bit(one) | bit(other)) != 0
    }

    /// Whether any webhook wants `event` about `room`.
    pub(crate) fn wants_about(&self, event: WebhookEvent, room: &str) -> bool {
        let hooks = self.hooks.load();
        hooks.iter().any(|hook| hook.wants(event, Some(room)))
    }

    /// The webhooks that want `event`, which is about `room` if there is one.
    pub(crate) fn of(&self, event: WebhookEvent, room: Option<&str>) -> Vec<Arc<Hook>> {
        let hooks = self.hooks.load();
        let wanting = hooks.iter().filter(|hook| hook.wants(event, room));
        wanting.cloned().collect()
    }

    pub(crate) fn all(&self) -> Arc<Vec<Arc<Hook>>> {
        self.hooks.load_full()
    }
}

const fn bit(event: WebhookEvent) -> u8 {
    1 << event as u8
}

/// The URL may contain a secret, and keys of Redis are seen by many.
fn queue_name(url: &str) -> Arc<str> {
    const BYTES: usize = 8;
    let mut name = String::with_capacity(2 * BYTES);
    for byte in digest(&SHA256, url.as_bytes()).as_ref().iter().take(BYTES) {
        // Writing into a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A webhook for `events` of `rooms`.
    pub(crate) fn hook(url: &str, events: &[WebhookEvent], rooms: &[&str]) -> Arc<Hook> {
        let config = WebhookConfig {
            url: url.to_owned(),
            label: "a".to_owned(),
            secret: "0123456789abcdef0123456789abcdef".to_owned(),
            secret_previous: None,
            events: events.to_vec(),
            rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
            batch_max: 10,
            batch_time: Duration::ZERO,
            timeout: Duration::from_secs(10),
            queue_max: 100,
        };
        Arc::new(Hook::new(&config, &Metrics::default()))
    }

    #[test]
    fn an_event_goes_to_the_webhooks_that_want_it_in_its_room() {
        use WebhookEvent::{Connected, RoomOccupied, RoomVacated};
        let table = HookTable::default();
        assert!(
            WebhookEvent::ALL
                .into_iter()
                .all(|event| !table.wants(event))
        );
        let all = hook("http://a/1", &[Connected, RoomOccupied], &[]);
        let some = hook("http://a/2", &[RoomOccupied], &["chat:*", "lobby"]);
        table.set(vec![all.clone(), some.clone()]);
        assert!(table.wants(Connected) && table.wants(RoomOccupied) && !table.wants(RoomVacated));
        let urls = |event, room| -> Vec<String> {
            let hooks = table.of(event, room);
            hooks
                .iter()
                .map(|hook| hook.settings().config.url.clone())
                .collect()
        };
        let both = ["http://a/1", "http://a/2"];
        assert_eq!(urls(Connected, None), both[..1]);
        assert_eq!(urls(RoomOccupied, Some("chat:7")), both);
        assert_eq!(urls(RoomOccupied, Some("lobby")), both);
        assert_eq!(urls(RoomOccupied, Some("lobby2")), both[..1]);
        assert_eq!(urls(RoomVacated, Some("lobby")), [""; 0]);
        table.set(Vec::new());
        assert!(!table.wants(Connected));
    }

    #[test]
    fn each_url_has_a_separate_queue_whose_name_hides_it() {
        let names = ["http://a/1", "http://a/2"].map(queue_name);
        assert_ne!(names[0], names[1]);
        assert_eq!(names[0], queue_name("http://a/1"));
        assert!(names[0].len() == 16 && names[0].bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

//! Sends the events of one queue, batch after batch, while no other node does.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::FutureExt;
use signalbox_config::WebhookConfig;
use signalbox_telemetry::{
    metrics::{EventDropReason, events::WebhookAttemptFailed},
    supervise,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tracing::{debug, info};

use super::{
    BatchClaim, EventBatch, EventQueue, NextEvents, Shared, backoff, hooks::Hook, post::Poster,
};

/// How often a sender looks into an empty queue, on average: another node may have died that had added events.
const IDLE_PAUSE: Duration = Duration::from_secs(5);

/// The shortest pause while another sender sends.
const OTHER_PAUSE: Duration = Duration::from_millis(250);

/// Pause after the queue could not be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after an attempt that failed, when the process ends.
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// How often the right to send is renewed; a third of its time.
const RENEWAL: Duration = Duration::from_secs(5);

/// The task of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Send.
    Running,
    /// End, because the webhook was removed.
    Removed,
    /// Send what nobody else can send, and end.
    Ending,
}

/// The task that sends for a webhook.
pub(crate) struct SenderTask {
    hook: Arc<Hook>,
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
}

impl SenderTask {
    pub(crate) fn start(shared: &Arc<Shared>, hook: Arc<Hook>) -> Self {
        let (phase, phases) = watch::channel(Phase::Running);
        let sender = EventSender {
            id: shared.source.next_id(),
            shared: shared.clone(),
            hook: hook.clone(),
            phase: phases,
            poster: Poster::default(),
            failures: 0,
            last_reason: None,
        };
        let task = supervise::spawn("webhook", &shared.metrics, sender, |sender| {
            sender.run().boxed()
        });
        Self { hook, phase, task }
    }

    pub(crate) fn hook(&self) -> &Arc<Hook> {
        &self.hook
    }

    /// Whether the webhook is among these.
    pub(crate) fn is_for(&self, webhooks: &[WebhookConfig]) -> bool {
        webhooks.iter().any(|config| self.hook.is_at(&config.url))
    }

    /// Ends the task after the request that is under way.
    pub(crate) fn remove(self) {
        self.phase.send_replace(Phase::Removed);
    }

    /// Ends the task, after it has sent what nobody else can send, at `by` at the latest.
    pub(crate) async fn finish(self, by: Instant) {
        self.phase.send_replace(Phase::Ending);
        let abort = self.task.abort_handle();
        if timeout_at(by, self.task).await.is_err() {
            abort.abort();
        }
    }
}

struct EventSender {
    id: String,
    shared: Arc<Shared>,
    hook: Arc<Hook>,
    phase: watch::Receiver<Phase>,
    poster: Poster,
    /// Attempts that failed in a row.
    failures: u32,
    last_reason: Option<String>,
}

impl EventSender {
    async fn run(&mut self) {
        let queue = self.shared.queue.clone();
        loop {
            // Nobody can end the task any more if the channel is closed.
            let is_left = self.phase.has_changed().is_err();
            let phase = *self.phase.borrow_and_update();
            let is_over = match phase {
                Phase::Running => is_left,
                Phase::Removed => true,
                Phase::Ending => queue.outlives_process(),
            };
            if is_over {
                return self.give_up(phase).await;
            }
            let next = match self.claim(phase).await {
                Some(next) => next,
                None => {
                    self.pause(sleep(RETRY_PAUSE)).await;
                    continue;
                }
            };
            match next {
                NextEvents::None if phase == Phase::Ending => return,
                NextEvents::None => {
                    let pause = IDLE_PAUSE.mul_f64(0.8 + 0.4 * fastrand::f64());
                    self.pause_until_woken(pause).await;
                }
                NextEvents::OfAnother(time) => {
                    self.pause(sleep(OTHER_PAUSE)).await;
                    self.pause_until_woken(time.min(IDLE_PAUSE)).await;
                }
                NextEvents::Later(time) => self.pause(sleep(time)).await,
                NextEvents::Batch(batch) => self.send(batch).await,
            }
        }
    }

    /// Asks for the next events; `None` if the queue cannot be reached.
    async fn claim(&self, phase: Phase) -> Option<NextEvents> {
        let settings = self.hook.settings();
        let batch_id = self.shared.source.next_id();
        let claim = BatchClaim {
            queue: self.hook.queue(),
            sender: &self.id,
            batch_max: settings.config.batch_max,
            batch_time: match phase {
                Phase::Running => settings.config.batch_time,
                Phase::Removed | Phase::Ending => Duration::ZERO,
            },
            batch_id: &batch_id,
        };
        match self.shared.queue.claim(claim).await {
            Ok(state) => {
                self.hook.note_length(state.length);
                self.hook.note_oldest(state.oldest);
                Some(state.next)
            }
            Err(error) => {
                debug!(%error, "the queue of a webhook cannot be reached");
                None
            }
        }
    }

    /// Sends `batch`, and removes it from the queue, or waits if that fails.
    async fn send(&mut self, batch: EventBatch) {
        let settings = self.hook.settings();
        let attempt = self.poster.post(&settings.config, &batch);
        let renewal = Renewal {
            queue: &*self.shared.queue,
            name: self.hook.queue(),
            sender: &self.id,
        };
        match renewal.during(attempt).await {
            Ok(()) => {
                self.failures = 0;
                if self.last_reason.take().is_some() {
                    let webhook = &settings.config.label;
                    info!(webhook, "a webhook accepts its events again");
                }
                settings.metrics.sent.add(batch.events.len() as u64);
                self.finish(&batch).await;
            }
            Err(reason) => self.failed(reason).await,
        }
    }

    /// Removes a batch that was sent from the queue. If it stays there, it is sent again.
    async fn finish(&mut self, batch: &EventBatch) {
        let queue = self.shared.queue.clone();
        while let Err(error) = queue.finish(self.hook.queue(), &batch.id).await {
            debug!(%error, "a batch of events was sent, and could not be removed from its queue");
            if *self.phase.borrow_and_update() != Phase::Running {
                return;
            }
            self.pause(sleep(RETRY_PAUSE)).await;
        }
    }

    async fn failed(&mut self, reason: String) {
        self.failures = self.failures.saturating_add(1);
        let pause = match *self.phase.borrow() {
            Phase::Running => backoff::pause(self.failures),
            Phase::Removed | Phase::Ending => LAST_PAUSE,
        };
        let settings = self.hook.settings();
        WebhookAttemptFailed {
            metrics: &settings.metrics,
            webhook: &settings.config.label,
            reason: &reason,
            is_news: self.last_reason.as_ref() != Some(&reason),
            pause,
        }
        .emit();
        self.last_reason = Some(reason);
        let (shared, hook, id) = (self.shared.clone(), self.hook.clone(), self.id.clone());
        let renewal = Renewal {
            queue: &*shared.queue,
            name: hook.queue(),
            sender: &id,
        };
        self.pause(renewal.during(sleep(pause))).await;
    }

    /// Lets other senders send. Events of a webhook that was removed are dropped if nobody else can send them.
    async fn give_up(&self, phase: Phase) {
        let queue = &self.shared.queue;
        if let Err(error) = queue.release(self.hook.queue(), &self.id).await {
            debug!(%error, "others send the events of a webhook later");
        }
        if phase == Phase::Removed {
            let dropped = queue.discard(self.hook.queue());
            self.hook.count_dropped(EventDropReason::Removed, dropped);
            self.hook.note_length(0);
            self.hook.note_oldest(Duration::ZERO);
        }
    }

    /// Waits for events, for `time` at most, or until the phase changes.
    async fn pause_until_woken(&mut self, time: Duration) {
        let hook = self.hook.clone();
        self.pause(async move {
            tokio::select! {
                () = hook.woken() => {}
                () = sleep(time) => {}
            }
        })
        .await;
    }

    /// Waits for `end`, or until the phase changes.
    async fn pause(&mut self, end: impl Future<Output = ()>) {
        tokio::select! {
            () = end => {}
            _ = self.phase.changed() => {}
        }
    }
}

/// Keeps the right to send.
struct Renewal<'a> {
    queue: &'a dyn EventQueue,
    name: &'a str,
    sender: &'a str,
}

impl Renewal<'_> {
    /// Returns the result of `work`. If the right is lost meanwhile, another sender may send the same batch.
    async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut renewals = interval(RENEWAL);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the right is new.
        renewals.tick().await;
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                _ = renewals.tick() => {
                    if let Err(error) = self.queue.renew(self.name, self.sender).await {
                        debug!(%error, "the right to send events was not renewed");
                    }
                }
            }
        }
    }
}

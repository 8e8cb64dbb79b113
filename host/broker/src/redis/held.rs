//! Messages for users who have left this node: they wait until the user connects to any node, and are forwarded there.
//!
//! The sender got `delivered` for such a message: this node held the user when it was published, or the sender's node had not
//! yet learned of the change. One task for each user passes the messages on in order ([`pass_on`]). Later messages wait behind
//! them, even if the user is back. [`super::waiting`] decides the order.

mod pass_on;

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use signalbox_telemetry::metrics::{DropReason, Metrics, events::MessageDropped};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use super::{
    fences::Fences,
    holders::Holders,
    keys::{Ability, KeyNames, ServerId},
    marks::Trail,
    outgoing::Outgoing,
    waiting::{HOLD, Parcel, QueuedParcel, WaitingQueue},
};
use crate::LocalNode;

/// The most bytes of waiting messages, for all users and for one. Messages beyond it are dropped and counted.
const BYTES_MAX: usize = 16 << 20;
const USER_BYTES_MAX: usize = 1 << 20;

/// The messages that wait, by user.
pub(super) struct HeldMessages {
    holders: Arc<Holders>,
    fences: Arc<Fences>,
    keys: Arc<KeyNames>,
    outgoing: Arc<Outgoing>,
    node: Arc<dyn LocalNode>,
    metrics: Arc<Metrics>,
    state: Mutex<HeldState>,
    /// The number of users in `state`. Every incoming message checks it.
    users: AtomicUsize,
    /// The number of the next forwarded message.
    next_number: AtomicU64,
    /// Notified when a task ended or a user was forgotten.
    fewer: Notify,
}

#[derive(Default)]
struct HeldState {
    users: HashMap<Box<str>, User>,
    bytes: usize,
}

#[derive(Default)]
struct User {
    waiting: WaitingQueue,
    /// Wakes the task that passes the messages on.
    poked: Arc<Notify>,
    has_task: bool,
    /// Since when the next message waits only for forwarded ones to arrive.
    blocked_since: Option<Instant>,
}

impl HeldMessages {
    pub(super) fn new(
        holders: Arc<Holders>,
        fences: Arc<Fences>,
        keys: Arc<KeyNames>,
        outgoing: Arc<Outgoing>,
        node: Arc<dyn LocalNode>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            holders,
            fences,
            keys,
            outgoing,
            node,
            metrics,
            state: Mutex::default(),
            users: AtomicUsize::new(0),
            next_number: AtomicU64::new(0),
            fewer: Notify::new(),
        }
    }

    /// Whether new messages for `user` must wait: behind queued ones, or for forwarded ones to arrive.
    pub(super) fn is_waiting(&self, user: &str) -> bool {
        self.users.load(Ordering::Acquire) > 0 && self.state().users.contains_key(user)
    }

    /// Queues `parcel` for `user` after all earlier messages.
    pub(super) fn push(self: &Arc<Self>, user: &str, parcel: Parcel) {
        let bytes = parcel.charge();
        let mut state = self.state();
        let waiting = state.users.get(user).map_or(0, |user| user.waiting.bytes());
        if state.bytes + bytes > BYTES_MAX || waiting + bytes > USER_BYTES_MAX {
            drop(state);
            return self.dropped(user, &parcel);
        }
        state.bytes += bytes;
        let number = parcel.trail.number_of(self.keys.own_id());
        let entry = state.users.entry(user.into()).or_default();
        entry.waiting.push(parcel, number, Instant::now() + HOLD);
        let poked = entry.poked.clone();
        let needs_task = !std::mem::replace(&mut entry.has_task, true);
        self.count_users(&state);
        drop(state);
        if needs_task {
            let (held, user) = (self.clone(), Box::from(user));
            tokio::spawn(async move { held.pass_on_all(user, &poked).await });
        } else if number.is_some() {
            // Later messages may be waiting for it.
            poked.notify_one();
        }
    }

    /// Tries again to pass on messages for `user`, who may have connected to a node.
    pub(super) fn poke(&self, user: &str) {
        if self.users.load(Ordering::Acquire) > 0
            && let Some(user) = self.state().users.get(user)
        {
            user.poked.notify_one();
        }
    }

    /// Returns when no message for `user` waits here and all forwarded ones have arrived, or after [`Fences::time`].
    pub(super) async fn passed(&self, user: &str) {
        let passed = {
            let mut state = self.state();
            let Some(user) = state.users.get_mut(user) else {
                return;
            };
            let (fence, passed) = oneshot::channel();
            user.waiting.fences.push(fence);
            user.poked.notify_one();
            passed
        };
        let _ = timeout(self.fences.time(), passed).await;
    }

    /// Answers the question `id` of the server `from` after [`HeldMessages::passed`].
    pub(super) fn answer(self: &Arc<Self>, id: u64, from: String, user: String) {
        let held = self.clone();
        tokio::spawn(async move {
            held.passed(&user).await;
            held.answer_whether_here(id, &from, &user).await;
        });
    }

    /// Answers the question `id` of the server `from`, whether `user` is here.
    pub(super) fn answer_at_once(self: &Arc<Self>, id: u64, from: String, user: String) {
        let held = self.clone();
        tokio::spawn(async move { held.answer_whether_here(id, &from, &user).await });
    }

    /// Whether `server`, another one, holds `user` now; `true` if that is unknown.
    pub(super) async fn holds(&self, server: &ServerId, user: &str) -> bool {
        !self.holders.can(server, Ability::HolderQuestions) || self.fences.holds(server, user).await
    }

    async fn answer_whether_here(&self, id: u64, from: &str, user: &str) {
        let holds = self.node.holds_user(user);
        self.fences.answer(id, from, holds).await;
    }

    /// The message for `user` that was forwarded with `number` was delivered, or dropped.
    pub(super) fn arrived(&self, user: &str, number: u64) {
        let mut state = self.state();
        if let Some(entry) = state.users.get_mut(user) {
            entry.waiting.arrived(number);
            entry.poked.notify_one();
            self.forget_if_over(&mut state, user);
        }
    }

    /// A message for `user` was delivered here, or dropped: reports that to the servers that forwarded it.
    pub(super) fn ended(self: &Arc<Self>, user: &str, trail: &Trail) {
        let own = self.keys.own_id();
        if let Some(number) = trail.number_of(own) {
            self.arrived(user, number);
        }
        let others = trail.passed_on.iter().filter(|(server, _)| server != own);
        let others: Vec<_> = others.cloned().collect();
        if !others.is_empty() {
            let (fences, user) = (self.fences.clone(), user.to_owned());
            tokio::spawn(async move {
                for (server, number) in others {
                    fences.arrived(&server, &user, number).await;
                }
            });
        }
    }

    /// Returns when no message waits and all forwarded ones have arrived, or after `time`.
    pub(super) async fn settle(&self, time: Duration) {
        self.until(time, |state| state.users.is_empty()).await;
    }

    /// Returns when no message waits, or after `time`. Nothing is passed on after that, so the remaining messages count as
    /// dropped.
    pub(super) async fn end(&self, time: Duration) {
        self.until(time, |state| {
            state.users.values().all(|user| !user.has_task)
        })
        .await;
        let count = |user: &User| user.waiting.perishable();
        let left: usize = self.state().users.values().map(count).sum();
        (0..left).for_each(|_| self.count_dropped());
    }

    async fn until(&self, time: Duration, is_done: impl Fn(&HeldState) -> bool) {
        let done = async {
            loop {
                let mut fewer = pin!(self.fewer.notified());
                // Before the check, so that no notification is missed.
                fewer.as_mut().enable();
                if is_done(&self.state()) {
                    return;
                }
                fewer.await;
            }
        };
        let _ = timeout(time, done).await;
    }

    /// Forgets forwarded messages whose arrival was not reported in time.
    pub(super) fn sweep(&self) {
        let mut state = self.state();
        state.users.retain(|_, user| {
            user.waiting.sweep();
            user.has_task || !user.waiting.is_over()
        });
        self.count_users(&state);
    }

    /// The next message for `user`. If there is none, the task must end.
    fn front(&self, user: &str) -> Option<QueuedParcel> {
        let mut state = self.state();
        let entry = state.users.get_mut(user)?;
        let front = entry.waiting.front().cloned();
        if front.is_none() {
            entry.has_task = false;
            self.forget_if_over(&mut state, user);
            self.fewer.notify_waiters();
        }
        front
    }

    fn remove(&self, user: &str, queued: &QueuedParcel) {
        let mut state = self.state();
        if let Some(entry) = state.users.get_mut(user) {
            entry.blocked_since = None;
            let bytes = entry.waiting.remove(queued);
            state.bytes -= bytes;
        }
    }

    /// Forgets `user` if nothing waits and everything has arrived, which wakes the callers of [`HeldMessages::passed`].
    fn forget_if_over(&self, state: &mut HeldState, user: &str) {
        let is_over = |user: &User| !user.has_task && user.waiting.is_over();
        if state.users.get(user).is_some_and(is_over) {
            state.users.remove(user);
            self.count_users(state);
        }
    }

    fn count_users(&self, state: &HeldState) {
        let before = self.users.swap(state.users.len(), Ordering::AcqRel);
        if before > state.users.len() {
            self.fewer.notify_waiters();
        }
    }

    fn dropped(self: &Arc<Self>, user: &str, parcel: &Parcel) {
        if parcel.at.is_none() {
            self.count_dropped();
        }
        self.ended(user, &parcel.trail);
    }

    fn count_dropped(&self) {
        MessageDropped {
            metrics: &self.metrics,
            reason: DropReason::Moved,
        }
        .emit();
    }

    fn state(&self) -> MutexGuard<'_, HeldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

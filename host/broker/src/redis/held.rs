//! Messages for users who have left this node: they wait until the user connects to any node, and are forwarded there.
//!
//! The sender got `delivered` for such a message: this node held the user when it was published, or the sender's node had not
//! yet learned of the change. One task for each user passes the messages on in order. Later messages wait behind them, even
//! if the user is back. [`super::waiting`] decides the order.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use signalbox_telemetry::metrics::{DropReason, Metrics, events::MessageDropped};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

use super::{
    deduplicator,
    fences::Fences,
    holders::Holders,
    keys::{Ability, KeyNames, RouteName, ServerId},
    marks::{self, HOPS_MAX, Trail},
    outgoing::Outgoing,
    waiting::{HOLD, Parcel, QueuedParcel, WaitingQueue},
};
use crate::{LocalNode, Target};

/// When a forwarded message counts as arrived without a report: it may be held again where it went.
const UNDER_WAY: Duration = HOLD.saturating_add(Duration::from_secs(1));

/// The most bytes of waiting messages, for all users and for one. Messages beyond it are dropped and counted.
const BYTES_MAX: usize = 16 << 20;
const USER_BYTES_MAX: usize = 1 << 20;

/// How long to wait for a notice that a user has connected before looking the user up again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The most messages that use the result of one lookup.
const BATCH: usize = 64;

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

/// The other servers of a user, from a recent lookup.
#[derive(Default)]
struct Elsewhere {
    servers: Option<Vec<ServerId>>,
    /// The number of messages that it was used for.
    uses: usize,
}

/// The result of an attempt to pass a message on.
enum PassOnResult {
    /// Nothing remains to be done for it here.
    Gone,
    /// The next attempt is due at this time, or when something changes.
    Again(Instant),
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
            return self.dropped(user, &parcel.trail);
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
            held.fences.answer(id, &from).await;
        });
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
        let count = |user: &User| user.waiting.len();
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

    async fn pass_on_all(self: Arc<Self>, user: Box<str>, poked: &Notify) {
        let mut elsewhere = Elsewhere::default();
        while let Some(next) = self.front(&user) {
            match self.pass_on(&user, &next, &mut elsewhere).await {
                PassOnResult::Gone => self.remove(&user, &next),
                PassOnResult::Again(at) => {
                    elsewhere = Elsewhere::default();
                    let _ = timeout_at(at, poked.notified()).await;
                }
            }
        }
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

    /// Delivers a message here or forwards it, if `user` is on a node and no earlier message is still on its way.
    async fn pass_on(
        self: &Arc<Self>,
        user: &str,
        next: &QueuedParcel,
        elsewhere: &mut Elsewhere,
    ) -> PassOnResult {
        let Parcel { frame, trail, .. } = &next.parcel;
        if self.node.holds_user(user) {
            if let Some(until) = self.blocked(user, next, &[]) {
                return PassOnResult::Again(until);
            }
            if self.node.deliver(Target::User(user), frame) > 0 {
                self.ended(user, trail);
                return PassOnResult::Gone;
            }
        }
        let others = self.elsewhere(user, elsewhere).await;
        let has_it = |server: &ServerId| trail.servers.contains(server);
        let (have_it, to): (Vec<_>, Vec<_>) = others.into_iter().partition(has_it);
        if !to.is_empty() {
            if let Some(until) = self.blocked(user, next, &to) {
                return PassOnResult::Again(until);
            }
            if self.forward(user, next, to).await {
                return PassOnResult::Gone;
            }
        }
        if !have_it.is_empty() {
            self.ended(user, trail);
            return PassOnResult::Gone;
        }
        if Instant::now() >= next.until {
            self.dropped(user, trail);
            return PassOnResult::Gone;
        }
        PassOnResult::Again(next.until.min(Instant::now() + LOOK_AGAIN))
    }

    /// The other servers that hold `user`, sorted; empty if there are none, or if Redis does not answer.
    async fn elsewhere(&self, user: &str, known: &mut Elsewhere) -> Vec<ServerId> {
        if known.servers.is_none() || known.uses >= BATCH {
            let holders = self
                .holders
                .of(RouteName::User(user))
                .await
                .unwrap_or_default();
            let servers = holders.into_iter().map(|(server, _)| server);
            let mut others: Vec<_> = servers
                .filter(|server| server != self.keys.own_id())
                .collect();
            others.sort_unstable();
            *known = Elsewhere {
                servers: Some(others),
                uses: 0,
            };
        }
        known.uses += 1;
        known.servers.clone().unwrap_or_default()
    }

    /// When to try again if earlier messages than `next` are still on their way to servers other than `to`.
    ///
    /// The wait is limited to [`Fences::time`]: if a server hangs for so long, order is not kept.
    fn blocked(&self, user: &str, next: &QueuedParcel, to: &[ServerId]) -> Option<Instant> {
        let mut state = self.state();
        let entry = state.users.get_mut(user)?;
        let until = entry.waiting.blocked(next, to)?;
        let now = Instant::now();
        let since = *entry.blocked_since.get_or_insert(now);
        let patience = next.until.min(since + self.fences.time());
        if now >= patience {
            entry.waiting.forget_under_way();
            return None;
        }
        Some(until.min(patience))
    }

    /// Forwards a message to the servers `to`. Returns whether nothing remains to be done for it, because one of them has it, or
    /// may have it, or because it was dropped.
    async fn forward(self: &Arc<Self>, user: &str, next: &QueuedParcel, to: Vec<ServerId>) -> bool {
        let parcel = &next.parcel;
        if parcel.hops >= HOPS_MAX {
            self.dropped(user, &parcel.trail);
            return true;
        }
        let own = self.keys.own_id();
        let new_number = || self.next_number.fetch_add(1, Ordering::Relaxed);
        let number = next.number.unwrap_or_else(new_number);
        let mut trail = parcel.trail.clone();
        // A user who comes back here still needs it.
        trail.servers.retain(|server| server != own);
        trail.servers.extend(to.iter().cloned());
        if next.number.is_none() {
            trail.passed_on.push((own.clone(), number));
        }
        let of_frame = || deduplicator::identity(parcel.frame.as_str());
        let identity = parcel.identity.unwrap_or_else(of_frame);
        let line = marks::line(parcel.hops + 1, identity, &trail);
        let marked = line + parcel.frame.as_str();
        let understands = |server: &ServerId| self.holders.can(server, Ability::Forwards);
        let publish = |server: &ServerId| {
            let text = match understands(server) {
                true => &marked,
                false => parcel.frame.as_str(),
            };
            let server = server.clone();
            async move { self.outgoing.post(&server, text, None).await }
        };
        // Noted before the message can arrive.
        let reporting = to.iter().filter(|server| understands(server)).count();
        self.forwarded(user, number, &to, reporting);
        let results = join_all(to.iter().map(publish)).await;
        let mut is_gone = false;
        for (server, result) in to.iter().zip(&results) {
            match result {
                Ok(true) => is_gone = true,
                Ok(false) => {
                    self.holders.recheck(server);
                    if understands(server) {
                        self.arrived(user, number);
                    }
                }
                Err(_) => {}
            }
        }
        if is_gone {
            self.metrics.redis.forwarded.increment();
        } else if results.iter().any(Result::is_err) {
            // The publish may have been carried out: a second one could deliver the message twice.
            debug!("a message was not forwarded, because Redis did not take it");
            self.count_dropped();
            is_gone = true;
        }
        is_gone
    }

    fn forwarded(&self, user: &str, number: u64, to: &[ServerId], reporting: usize) {
        let until = Instant::now() + UNDER_WAY;
        if let Some(user) = self.state().users.get_mut(user) {
            user.waiting
                .forwarded(number, to.to_vec(), reporting, until);
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

    fn dropped(self: &Arc<Self>, user: &str, trail: &Trail) {
        self.count_dropped();
        self.ended(user, trail);
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

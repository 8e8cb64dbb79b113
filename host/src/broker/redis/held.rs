//! Messages for users who were here and are not: they wait until the user is somewhere, and are forwarded there.
//!
//! The sender has been told that such a message is `delivered`: this node held the user when it was published, or the
//! sender's node had not heard yet that it does so no more. One task for each user passes them on in order, and what comes in
//! meanwhile waits behind them, also for a user who is back.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

use super::{
    doubles,
    fences::Fences,
    holders::Holders,
    keys::{Ability, Keys, Name, ServerId},
    marks::{self, HOPS_MAX, Trail},
    outgoing::Outgoing,
};
use crate::{
    broker::{LocalNode, Target},
    metrics::{DropReason, Metrics, events::MessageDropped},
    protocol::Frame,
};

/// How long a message waits for a user who is nowhere.
pub(super) const HOLD: Duration = Duration::from_secs(5);

/// Bounds of the waiting messages: of all users, and of one. Messages over them are dropped and counted.
const BYTES_MAX: usize = 16 << 20;
const USER_BYTES_MAX: usize = 1 << 20;

/// Charged for each message in addition to its bytes.
const OVERHEAD_BYTES: usize = 128;

/// How often is looked where a user is, although nothing tells that they came.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Messages that are passed on by one look.
const BATCH: usize = 64;

/// A message that waits.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The frame for the clients.
    pub(super) frame: Frame,
    /// How often it was forwarded.
    pub(super) hops: u8,
    /// Its identity, as [`doubles::identity`] makes it; none: that of the frame.
    pub(super) identity: Option<u64>,
    pub(super) trail: Trail,
}

/// The messages that wait, by user.
pub(super) struct Held {
    holders: Arc<Holders>,
    fences: Arc<Fences>,
    keys: Arc<Keys>,
    outgoing: Arc<Outgoing>,
    node: Arc<dyn LocalNode>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// How many users have messages here: what every message that comes in looks at.
    users: AtomicUsize,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    waiting: HashMap<Box<str>, Waiting>,
    bytes: usize,
    /// Where messages for a user were forwarded of late.
    passed: HashMap<Box<str>, Vec<Passed>>,
}

/// A server that messages for a user were forwarded to.
struct Passed {
    server: ServerId,
    /// The last time.
    at: Instant,
    /// It may still have some of them, and is being asked when it has none any more.
    is_asked: bool,
}

#[derive(Default)]
struct Waiting {
    parcels: VecDeque<(Parcel, Instant)>,
    bytes: usize,
    poked: Arc<Notify>,
    /// Told by dropping the sender.
    fences: Vec<oneshot::Sender<()>>,
}

impl Held {
    pub(super) fn new(
        holders: Arc<Holders>,
        fences: Arc<Fences>,
        keys: Arc<Keys>,
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
            emptied: Notify::new(),
        }
    }

    /// Whether messages for `user` wait here, behind which others have to wait too.
    pub(super) fn is_waiting(&self, user: &str) -> bool {
        self.users.load(Ordering::Acquire) > 0 && self.state().waiting.contains_key(user)
    }

    /// Has `parcel` passed on to `user`, after those that wait already.
    pub(super) fn push(self: &Arc<Self>, user: &str, parcel: Parcel) {
        let bytes = parcel.charge();
        let mut state = self.state();
        let waiting = state.waiting.get(user).map_or(0, |waiting| waiting.bytes);
        if state.bytes + bytes > BYTES_MAX || waiting + bytes > USER_BYTES_MAX {
            drop(state);
            return self.dropped();
        }
        state.bytes += bytes;
        let is_first = !state.waiting.contains_key(user);
        let waiting = state.waiting.entry(user.into()).or_default();
        waiting.bytes += bytes;
        waiting.parcels.push_back((parcel, Instant::now() + HOLD));
        if is_first {
            self.users.fetch_add(1, Ordering::AcqRel);
            let (held, user, poked) = (self.clone(), user.into(), waiting.poked.clone());
            tokio::spawn(async move { held.pass_on_all(user, &poked).await });
        }
    }

    /// `user` may be somewhere now.
    pub(super) fn poke(&self, user: &str) {
        if self.users.load(Ordering::Acquire) > 0
            && let Some(waiting) = self.state().waiting.get(user)
        {
            waiting.poked.notify_one();
        }
    }

    /// Returns the servers that messages for `user` were forwarded to of late, at once or after a `wait` until no message
    /// waits for them.
    pub(super) async fn passed(&self, user: &str, wait: bool) -> Vec<ServerId> {
        let passed = {
            let mut state = self.state();
            let waiting = state.waiting.get_mut(user).filter(|_| wait);
            waiting.map(|waiting| {
                let (done, passed) = oneshot::channel();
                waiting.fences.push(done);
                waiting.poked.notify_one();
                passed
            })
        };
        if let Some(passed) = passed {
            let _ = passed.await;
        }
        let state = self.state();
        let passed = state.passed.get(user);
        let servers = passed.into_iter().flatten();
        servers.map(|passed| passed.server.clone()).collect()
    }

    /// The same of `server`, which may be this one or another. With `wait`, it has passed on everything that it had for
    /// `user`, or cannot be waited for.
    pub(super) async fn passed_by(
        &self,
        server: &ServerId,
        user: &str,
        wait: bool,
    ) -> Vec<ServerId> {
        if server != self.keys.own_id() {
            return self.fences.pass(server, user, wait).await;
        }
        let passed = timeout(self.fences.time(), self.passed(user, wait)).await;
        passed.unwrap_or_default()
    }

    /// Returns when nothing waits for anybody, or when `time` is over, and says which.
    pub(super) async fn settle(&self, time: Duration) -> bool {
        let settled = async {
            loop {
                let mut emptied = pin!(self.emptied.notified());
                // From here on no notification is missed.
                emptied.as_mut().enable();
                if self.users.load(Ordering::Acquire) == 0 {
                    return;
                }
                emptied.await;
            }
        };
        timeout(time, settled).await.is_ok()
    }

    /// The same, after which nothing is passed on any more: what still waits is dropped.
    pub(super) async fn end(&self, time: Duration) {
        if !self.settle(time).await {
            let count = |waiting: &Waiting| waiting.parcels.len();
            let left: usize = self.state().waiting.values().map(count).sum();
            (0..left).for_each(|_| self.dropped());
        }
    }

    /// Throws away what is too old to be used.
    pub(super) fn sweep(&self) {
        self.state().passed.retain(|_, servers| {
            servers.retain(|passed| passed.at.elapsed() < HOLD * 2);
            !servers.is_empty()
        });
    }

    async fn pass_on_all(self: Arc<Self>, user: Box<str>, poked: &Notify) {
        while let Some(batch) = self.take(&user) {
            let mut known = None;
            for (parcel, until) in batch {
                self.pass_on(&user, parcel, until, &mut known, poked).await;
            }
        }
    }

    /// The next messages for `user`; none if there are none, and the task is over.
    fn take(&self, user: &str) -> Option<Vec<(Parcel, Instant)>> {
        let mut state = self.state();
        let waiting = state.waiting.get_mut(user)?;
        let count = waiting.parcels.len().min(BATCH);
        if count == 0 {
            // The fences end with it: everything before them is passed on.
            state.waiting.remove(user);
            drop(state);
            if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.emptied.notify_waiters();
            }
            return None;
        }
        let batch: Vec<_> = waiting.parcels.drain(..count).collect();
        let bytes: usize = batch.iter().map(|(parcel, _)| parcel.charge()).sum();
        waiting.bytes -= bytes;
        state.bytes -= bytes;
        Some(batch)
    }

    /// Hands `parcel` out here or forwards it, as soon as `user` is somewhere. `known`: where they are, as far as that was
    /// asked a moment ago.
    async fn pass_on(
        self: &Arc<Self>,
        user: &str,
        parcel: Parcel,
        until: Instant,
        known: &mut Option<Vec<ServerId>>,
        poked: &Notify,
    ) {
        loop {
            if self.node.deliver(Target::User(user), &parcel.frame) > 0 {
                return;
            }
            if known.is_none() {
                let holders = self.holders.of(Name::User(user)).await;
                *known = holders
                    .ok()
                    .map(|holders| holders.into_iter().map(|(server, _)| server).collect());
            }
            let own = self.keys.own_id();
            let others = known.iter().flatten().filter(|server| *server != own);
            let others: Vec<ServerId> = others.cloned().collect();
            let others = self.behind_earlier(user, &parcel, others);
            if !others.is_empty() && self.forward(user, &parcel, others).await {
                return;
            }
            *known = None;
            if Instant::now() >= until {
                return self.dropped();
            }
            let look = until.min(Instant::now() + LOOK_AGAIN);
            let _ = timeout_at(look, poked.notified()).await;
        }
    }

    /// The servers that `parcel` is to be forwarded to, if the user is at `others`.
    ///
    /// Messages before it may still be at a server that the user has left again. It goes behind them.
    fn behind_earlier(&self, user: &str, parcel: &Parcel, others: Vec<ServerId>) -> Vec<ServerId> {
        let Trail { servers, passed_on } = &parcel.trail;
        let state = self.state();
        let earlier = state.passed.get(user).into_iter().flatten();
        let earlier: Vec<ServerId> = earlier
            .filter(|passed| passed.is_asked && !passed_on.contains(&passed.server))
            .map(|passed| passed.server.clone())
            .collect();
        let is_left = |server: &ServerId| !others.contains(server) && !servers.contains(server);
        match others.is_empty() || !earlier.iter().any(is_left) {
            true => others,
            false => earlier,
        }
    }

    /// Whether nothing more is to be done for `parcel`, because one of `others` has it, or may have it.
    async fn forward(self: &Arc<Self>, user: &str, parcel: &Parcel, others: Vec<ServerId>) -> bool {
        let has = |server: &ServerId| parcel.trail.servers.contains(server);
        let (have_it, to): (Vec<_>, Vec<_>) = others.into_iter().partition(has);
        if to.is_empty() {
            return !have_it.is_empty();
        }
        if parcel.hops >= HOPS_MAX {
            self.dropped();
            return true;
        }
        let own = self.keys.own_id();
        let mut trail = parcel.trail.clone();
        // A user who comes back here does not have it.
        trail.servers.retain(|server| server != own);
        trail.servers.extend(to.iter().cloned());
        if !trail.passed_on.contains(own) {
            trail.passed_on.push(own.clone());
        }
        let of_frame = || doubles::identity(parcel.frame.as_str());
        let identity = parcel.identity.unwrap_or_else(of_frame);
        let line = marks::line(parcel.hops + 1, identity, &trail);
        let marked = line + parcel.frame.as_str();
        self.note_passed(user, &to);
        let publish = |server: &ServerId| {
            let server = server.clone();
            let understands = self.holders.can(&server, Ability::Forwards);
            let text = if understands {
                &marked
            } else {
                parcel.frame.as_str()
            };
            async move { self.outgoing.post(&server, text, None).await }
        };
        let results = join_all(to.iter().map(publish)).await;
        if results.iter().any(|result| matches!(result, Ok(true))) {
            self.metrics.redis.forwarded.increment();
            self.ask_when_passed(user, &to);
            return true;
        }
        for server in &to {
            self.holders.doubt(server);
        }
        // What failed may have been carried out: sent again it might come twice.
        let is_uncertain = results.iter().any(Result::is_err);
        if is_uncertain {
            debug!("a message was not forwarded, because Redis did not take it");
            self.dropped();
        }
        is_uncertain || !have_it.is_empty()
    }

    fn note_passed(&self, user: &str, to: &[ServerId]) {
        let mut state = self.state();
        let passed = state.passed.entry(user.into()).or_default();
        for server in to {
            match passed.iter_mut().find(|passed| passed.server == *server) {
                Some(passed) => passed.at = Instant::now(),
                None => passed.push(Passed {
                    server: server.clone(),
                    at: Instant::now(),
                    is_asked: false,
                }),
            }
        }
    }

    /// Has each of `to`, which now has messages for `user`, say when it has passed them on. Until then later ones go behind them.
    fn ask_when_passed(self: &Arc<Self>, user: &str, to: &[ServerId]) {
        self.note_passed(user, to);
        let mut state = self.state();
        let passed = state.passed.get_mut(user).into_iter().flatten();
        for passed in passed.filter(|passed| !passed.is_asked && to.contains(&passed.server)) {
            // Others do not forward, and do not understand the question.
            if !self.holders.can(&passed.server, Ability::Forwards) {
                continue;
            }
            passed.is_asked = true;
            let (held, user, server) = (self.clone(), user.to_owned(), passed.server.clone());
            tokio::spawn(async move { held.until_passed(&user, &server).await });
        }
    }

    /// Asks `server` until it has passed on all that was forwarded to it for `user`, or cannot be waited for.
    async fn until_passed(&self, user: &str, server: &ServerId) {
        loop {
            let asked = Instant::now();
            self.fences.pass(server, user, true).await;
            let mut state = self.state();
            let passed = state.passed.get_mut(user).into_iter().flatten();
            let Some(passed) = passed.into_iter().find(|passed| passed.server == *server) else {
                return;
            };
            if passed.at <= asked {
                passed.is_asked = false;
                return;
            }
        }
    }

    fn dropped(&self) {
        MessageDropped {
            metrics: &self.metrics,
            reason: DropReason::Moved,
        }
        .emit();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parcel {
    fn charge(&self) -> usize {
        self.frame.len() + OVERHEAD_BYTES
    }
}

//! Passes a user's waiting messages on: delivers them here if the user is back, or forwards them to other servers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    super::{
        deduplicator, kept,
        keys::{Ability, RouteName, ServerId},
        marks::{self, HOPS_MAX},
        waiting::{HOLD, Parcel, QueuedParcel},
    },
    HeldMessages,
};
use crate::{HistoryName, Target};

/// When a forwarded message counts as arrived without a report: it may be held again where it went.
const UNDER_WAY: Duration = HOLD.saturating_add(Duration::from_secs(1));

/// How long to wait for a notice that a user has connected before looking the user up again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The most messages that use the result of one lookup.
const BATCH: usize = 64;

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
    /// Passes on the messages for `user` in order, until none waits.
    pub(super) async fn pass_on_all(self: Arc<Self>, user: Box<str>, poked: &Notify) {
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

    /// Delivers a message here or forwards it, if `user` is on a node and no earlier message is still on its way.
    async fn pass_on(
        self: &Arc<Self>,
        user: &str,
        next: &QueuedParcel,
        elsewhere: &mut Elsewhere,
    ) -> PassOnResult {
        let trail = &next.parcel.trail;
        if self.node.holds_user(user) {
            if let Some(until) = self.blocked(user, next, &[]) {
                return PassOnResult::Again(until);
            }
            if self.deliver_here(user, &next.parcel) > 0 {
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
            self.dropped(user, &next.parcel);
            return PassOnResult::Gone;
        }
        PassOnResult::Again(next.until.min(Instant::now() + LOOK_AGAIN))
    }

    /// The other servers that hold `user`, sorted; empty if there are none, or if Redis does not answer. A message is forwarded to
    /// several servers only if the user is at each of them: one that the user has left would forward it again, and could not know
    /// that another one has delivered it.
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
            if others.len() > 1 {
                others = self.holding(user, others).await;
            }
            *known = Elsewhere {
                servers: Some(others),
                uses: 0,
            };
        }
        known.uses += 1;
        known.servers.clone().unwrap_or_default()
    }

    /// `servers` without those that the user has left.
    async fn holding(&self, user: &str, servers: Vec<ServerId>) -> Vec<ServerId> {
        let holding = servers.iter().map(|server| self.holds(server, user));
        let holding = join_all(holding).await;
        let confirmed = servers.into_iter().zip(holding);
        confirmed
            .filter_map(|(server, holds)| holds.then_some(server))
            .collect()
    }

    /// When to try again if earlier messages than `next` are still on their way to servers other than `to`.
    ///
    /// The wait is limited to [`Fences::time`](super::super::fences::Fences::time): if a server hangs for so long, order is
    /// not kept.
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
            self.dropped(user, parcel);
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
        let (position, ability) = match &parcel.at {
            Some(at) => (kept::line(at), Ability::UserHistories),
            None => (String::new(), Ability::Forwards),
        };
        let marked = [line.as_str(), &position, parcel.frame.as_str()].concat();
        let understands = |server: &ServerId| self.holders.can(server, ability);
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
            debug!("a message was not forwarded, because Redis did not accept it");
            if parcel.at.is_none() {
                self.count_dropped();
            }
            is_gone = true;
        }
        is_gone
    }

    /// Delivers a message to the connections of `user` on this node, and returns how many took it.
    fn deliver_here(&self, user: &str, parcel: &Parcel) -> usize {
        match &parcel.at {
            Some(at) => {
                let frame = parcel.frame.with_offset(at.offset);
                self.node.deliver_kept(HistoryName::User(user), at, &frame)
            }
            None => self.node.deliver(Target::User(user), &parcel.frame),
        }
    }

    fn forwarded(&self, user: &str, number: u64, to: &[ServerId], reporting: usize) {
        let until = Instant::now() + UNDER_WAY;
        if let Some(user) = self.state().users.get_mut(user) {
            user.waiting
                .forwarded(number, to.to_vec(), reporting, until);
        }
    }
}

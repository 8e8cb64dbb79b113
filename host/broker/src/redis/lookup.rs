//! The servers that this node publishes to: those that hold a user or a room, cached for a moment. Keeps order when they
//! change.
//!
//! A route is cached for [`KEEP`], or until a node reports that it changed ([`super::notices`]). A sender's messages must not
//! overtake each other when the receiver moves: those published to the old server may still wait there ([`super::held`]). So
//! a route that no longer leads to a server is used only after that server has answered that everything it had has arrived
//! ([`super::fences`]). Publishing holds the route open for reading; a change waits until everything on the old route is
//! published.
//!
//! The route of a user who moves lists the new server before it loses the old one. So a route to several servers is used only
//! after all of them have answered, unless none of them is new on it: a message that waits at the old server must not be overtaken
//! by one that the new server delivers. A server that answers that the user is gone gets no copy: it would forward the copy to the
//! user's next server, and could not know that another one has delivered it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use futures_util::{
    FutureExt,
    future::{join, join_all},
};
use signalbox_redis_client::Unavailable;
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock},
    time::Instant,
};

use super::{
    fences::Fences,
    held::HeldMessages,
    holders::Holders,
    keys::{Ability, KeyNames, RouteName, ServerId},
    waiting::HOLD,
};
use crate::{CaughtUp, LocalNode};

/// How long a route is cached. A notice of a change usually ends it earlier.
const KEEP: Duration = Duration::from_millis(1500);

/// How long a server to which messages were published may still have some of them.
const PAST_KEPT: Duration = HOLD.saturating_add(Duration::from_secs(1));

/// The most routes that are cached; beyond it all are forgotten.
const ROUTES_MAX: usize = 200_000;

/// A route that is held open: messages that are published along it are in order.
pub(super) type OpenRoute = OwnedRwLockReadGuard<Known>;

/// Looks up routes. Of several concurrent callers with the same question, one asks Redis.
pub(super) struct Lookup {
    holders: Arc<Holders>,
    held: Arc<HeldMessages>,
    fences: Arc<Fences>,
    keys: Arc<KeyNames>,
    node: Arc<dyn LocalNode>,
    users: DashMap<Box<str>, Arc<Route>>,
    rooms: DashMap<Box<str>, Arc<Route>>,
}

#[derive(Default)]
struct Route {
    known: Arc<RwLock<Known>>,
    /// It changed since it was read.
    stale: AtomicBool,
}

/// The cached state of a route.
#[derive(Default)]
pub(super) struct Known {
    servers: Arc<[ServerId]>,
    /// Those of `servers` that the user has left.
    gone: Vec<ServerId>,
    /// When Redis was asked for `servers`.
    asked: Option<Instant>,
    failure: Option<(Instant, Unavailable)>,
    /// Servers that it led to before, each with the end of that time.
    past: Vec<(ServerId, Instant)>,
    /// The servers of the last different route.
    before: Vec<ServerId>,
}

impl Lookup {
    pub(super) fn new(
        holders: Arc<Holders>,
        held: Arc<HeldMessages>,
        fences: Arc<Fences>,
        keys: Arc<KeyNames>,
        node: Arc<dyn LocalNode>,
    ) -> Self {
        Self {
            holders,
            held,
            fences,
            keys,
            node,
            users: DashMap::new(),
            rooms: DashMap::new(),
        }
    }

    /// The route of `name`. The caller holds it until everything is published.
    pub(super) async fn open(&self, name: RouteName<'_>) -> Result<OpenRoute, Unavailable> {
        let came = Instant::now();
        let route = self.route(name);
        let known = route.known.clone().read_owned().await;
        if route.is_usable(&known, came) {
            return Ok(known);
        }
        drop(known);
        // Waits for publishers on the old route, and lets no other begin.
        let mut known = route.known.clone().write_owned().await;
        if !route.is_usable(&known, came) {
            if let Some((at, error)) = &known.failure
                && *at >= came
            {
                return Err(error.clone());
            }
            route.stale.store(false, Ordering::SeqCst);
            self.ask(name, &mut known).await?;
        }
        Ok(known.downgrade())
    }

    /// Whether messages of this node to `user` may still be on their way from other nodes. Without a route, which a message
    /// makes, nothing is.
    pub(super) fn catch_up<'a>(&'a self, user: &'a str) -> CaughtUp<'a> {
        let is_behind = |route: &Route| match route.known.try_read() {
            Ok(known) => route.may_be_behind(&known, self.keys.own_id()),
            Err(_) => true,
        };
        let route = self.users.get(user).filter(|route| is_behind(route));
        let Some(route) = route.map(|route| route.clone()) else {
            return CaughtUp::Yes;
        };
        if !self.node.holds_user(user) {
            return CaughtUp::Elsewhere;
        }
        let caught_up = async move {
            let mut known = route.known.write().await;
            if route.may_be_behind(&known, self.keys.own_id()) {
                route.stale.store(false, Ordering::SeqCst);
                known.leave_all();
                self.pass_fences(user, &mut known).await;
            }
        };
        CaughtUp::After(caught_up.boxed())
    }

    /// Invalidates the cached route of `name`.
    pub(super) fn changed(&self, name: RouteName<'_>) {
        let (map, text) = self.place(name);
        if let Some(route) = map.get(text) {
            route.stale.store(true, Ordering::SeqCst);
        }
    }

    /// Nobody listens at `server`: drops what is cached about it and about `name`.
    pub(super) fn forget(&self, name: RouteName<'_>, server: &ServerId) {
        self.changed(name);
        self.holders.recheck(server);
    }

    /// Removes entries that are too old to be used.
    pub(super) fn sweep(&self) {
        let is_used = |route: &Arc<Route>| {
            let known = route.known.try_read();
            Arc::strong_count(route) > 1 || known.map_or(true, |known| known.is_recent())
        };
        self.users.retain(|_, route| is_used(route));
        self.rooms.retain(|_, route| is_used(route));
        self.holders.sweep();
    }

    /// Reads the route of `name`.
    async fn ask(&self, name: RouteName<'_>, known: &mut Known) -> Result<(), Unavailable> {
        let asked = Instant::now();
        known.leave_all();
        let holders = match self.holders.of(name).await {
            Ok(holders) => holders,
            Err(error) => {
                known.failure = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        known.servers = holders.into_iter().map(|(server, _)| server).collect();
        // A user without a route gets nothing now, so nothing can be overtaken.
        if let RouteName::User(user) = name
            && !known.servers.is_empty()
        {
            self.pass_fences(user, known).await;
        }
        known.asked = Some(asked);
        Ok(())
    }

    /// Returns when all messages for `user` have arrived at servers to which the route led and no longer leads. If it now leads to
    /// several servers, some of them new on it, also asks these, and notes which of them the user has left.
    async fn pass_fences(&self, user: &str, known: &mut Known) {
        let own = self.keys.own_id();
        let past: Vec<ServerId> = known.past.drain(..).map(|(server, _)| server).collect();
        let had_gone = !std::mem::take(&mut known.gone).is_empty();
        let is_new = |server: &ServerId| !past.contains(server);
        let is_unsure = known.servers.len() > 1 && (had_gone || known.servers.iter().any(is_new));
        let left = past.iter().filter(|server| !known.servers.contains(server));
        let unsure = known
            .servers
            .iter()
            .filter(|server| is_unsure && *server != own);
        let ask = async |server: &ServerId| match past.contains(server) {
            true => self.pass(server, user).await,
            false => self.held.holds(server, user).await,
        };
        let (_, holding) = join(
            join_all(left.map(|server| self.pass(server, user))),
            join_all(unsure.clone().map(ask)),
        )
        .await;
        let answers = unsure.zip(holding);
        let gone = answers.filter(|(_, holds)| !holds);
        known.gone = gone.map(|(server, _)| server.clone()).collect();
    }

    /// Returns whether `server` holds `user` when all its messages have arrived; `true` if that is unknown.
    async fn pass(&self, server: &ServerId, user: &str) -> bool {
        if server == self.keys.own_id() {
            self.held.passed(user).await;
        } else if self.holders.can(server, Ability::Forwards) {
            return self.fences.pass(server, user).await;
        }
        true
    }

    fn route(&self, name: RouteName<'_>) -> Arc<Route> {
        let (map, text) = self.place(name);
        if let Some(route) = map.get(text) {
            return route.clone();
        }
        if map.len() >= ROUTES_MAX {
            map.clear();
        }
        map.entry(text.into()).or_default().clone()
    }

    fn place<'a>(&'a self, name: RouteName<'a>) -> (&'a DashMap<Box<str>, Arc<Route>>, &'a str) {
        match name {
            RouteName::User(user) => (&self.users, user),
            RouteName::Room(room) => (&self.rooms, room),
        }
    }
}

impl Route {
    /// Whether a caller that `came` then may use `known`. An empty route, or one with servers that the user has left, is not reused
    /// by later callers: the user may have connected in between, and a server that is on the route already gives no notice.
    fn is_usable(&self, known: &Known, came: Instant) -> bool {
        let lasts = !known.servers.is_empty() && known.gone.is_empty();
        !self.stale.load(Ordering::SeqCst)
            && known
                .asked
                .is_some_and(|asked| asked >= came || (lasts && asked.elapsed() < KEEP))
    }

    /// Whether messages may be on their way through servers other than `own`, which holds the user now.
    fn may_be_behind(&self, known: &Known, own: &ServerId) -> bool {
        let leads_somewhere = !known.servers.is_empty() || !known.past.is_empty();
        let changed = self.stale.load(Ordering::SeqCst) || !known.gone.is_empty();
        leads_somewhere && (changed || !known.servers.contains(own)) && known.is_recent()
    }
}

impl Known {
    /// Whether it leads to `server`.
    pub(super) fn leads_to(&self, server: &ServerId) -> bool {
        self.servers.contains(server)
    }

    /// The servers other than `own` that are alive and hold it. If there are none, and the message is not delivered `here`, one
    /// that the user has left, if any: it passes the message on.
    pub(super) fn receivers(&self, own: &ServerId, here: bool) -> Vec<&ServerId> {
        let others = self.servers.iter().filter(|server| *server != own);
        let (gone, mut receivers): (Vec<_>, Vec<_>) =
            others.partition(|server| self.gone.contains(server));
        if receivers.is_empty() && !here {
            receivers.extend(gone.first());
        }
        receivers
    }

    /// Whether it was read after `time`, and led to other servers than `server` before.
    pub(super) fn has_new(&self, server: &ServerId, time: Instant) -> bool {
        let is_fresh = self.asked.is_some_and(|asked| asked >= time);
        is_fresh && !self.before.is_empty() && !self.before.contains(server)
    }

    /// Whether messages that were published along it or along an earlier route may still be on their way.
    fn is_recent(&self) -> bool {
        let asked = self
            .asked
            .is_some_and(|asked| asked.elapsed() < KEEP + PAST_KEPT);
        let mut past = self.past.iter();
        asked || past.any(|(_, until)| until.elapsed() < PAST_KEPT)
    }

    /// Moves all servers to the past ones, because the route is outdated.
    fn leave_all(&mut self) {
        let until = self
            .asked
            .take()
            .map_or_else(Instant::now, |asked| (asked + KEEP).min(Instant::now()));
        let servers = std::mem::take(&mut self.servers);
        self.past
            .retain(|(server, until)| until.elapsed() < PAST_KEPT && !servers.contains(server));
        self.past
            .extend(servers.iter().map(|server| (server.clone(), until)));
        if !self.past.is_empty() {
            let past = self.past.iter().map(|(server, _)| server.clone());
            self.before = past.collect();
        }
    }
}

/// Removes outdated entries regularly, until it is aborted.
pub(super) async fn sweep(lookup: &Lookup, held: &HeldMessages) {
    let mut ticks = tokio::time::interval(KEEP);
    loop {
        ticks.tick().await;
        lookup.sweep();
        held.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(servers: &[&str], gone: &[&str]) -> Known {
        let ids =
            |names: &[&str]| -> Vec<ServerId> { names.iter().map(|id| Arc::from(*id)).collect() };
        Known {
            servers: ids(servers).into(),
            gone: ids(gone),
            ..Known::default()
        }
    }

    fn receivers(known: &Known, here: bool) -> Vec<&str> {
        let receivers = known.receivers(&Arc::from("own"), here);
        receivers.into_iter().map(|server| &**server).collect()
    }

    #[test]
    fn a_server_that_the_user_has_left_gets_a_message_only_if_no_other_can_take_it() {
        let some_hold = known(&["own", "a", "b", "c"], &["b"]);
        assert_eq!(receivers(&some_hold, false), ["a", "c"]);
        assert_eq!(receivers(&some_hold, true), ["a", "c"]);
        let none_holds = known(&["own", "a", "b"], &["a", "b"]);
        assert_eq!(receivers(&none_holds, false), ["a"], "it passes it on");
        assert_eq!(receivers(&none_holds, true), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_new_on_a_route_that_was_read_since_and_was_different_before() {
        let [a, b]: [ServerId; 2] = ["a", "b"].map(Arc::from);
        let came = Instant::now();
        let mut route = known(&["a"], &[]);
        route.asked = Some(came);
        assert!(!route.has_new(&a, came), "nothing is known of before");
        route.leave_all();
        route.servers = Arc::new([a.clone(), b.clone()]);
        route.asked = Some(came);
        assert!(route.has_new(&b, came) && !route.has_new(&a, came));
        assert!(!route.has_new(&b, came + KEEP), "it was read before");
    }
}

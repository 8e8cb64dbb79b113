//! The routes of this server: the users and rooms that it holds, written as differences to what was written before.
//!
//! Connects and disconnects only mark a name as changed. The writer ([`super::writer`]) looks up the state *now*, compares it
//! with what it wrote last, and sends the difference in batches. So any number of connections of one user may come and go
//! in any order: the last lookup is right, and the route is removed with the last connection and never before.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Cmd;
use signalbox_config::RedisCompat;
use signalbox_redis_client::{Commands, Unavailable};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use super::{
    keys::{KeyNames, RouteName},
    notices,
};
use crate::LocalNode;

/// The most names that are written together.
const BATCH: usize = 256;

/// After a new link, an expired lease or a failed batch, everything concerned is written again after this pause: a command
/// that was given up may still be carried out late, and another node may be about to remove a server that it saw dead.
const CONFIRM_AFTER: Duration = Duration::from_secs(2);

/// How long `websocket-app` believes that a user is online.
const ONLINE_TTL: Duration = Duration::from_secs(60);

/// An owned [`RouteName`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum OwnedName {
    User(Box<str>),
    Room(Box<str>),
}

/// Whether a name is written in Redis; an absent name is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// It is unknown, or must be written in any case.
    Unknown,
}

/// The state of a name when its batch was made.
struct BatchItem {
    name: OwnedName,
    /// Whether this node holds it.
    holds: bool,
    /// Whether other nodes may have an outdated route.
    changed: bool,
}

/// The names, and whether they are written.
pub(super) struct RouteWriter {
    commands: Commands,
    keys: Arc<KeyNames>,
    node: Arc<dyn LocalNode>,
    state: Mutex<RouteState>,
    wake: Notify,
}

#[derive(Default)]
struct RouteState {
    /// Names whose state must be looked up.
    changed: HashSet<OwnedName>,
    /// Names that are under way to Redis.
    writing: HashSet<OwnedName>,
    written: HashMap<OwnedName, Written>,
    /// Names to be written again at `confirm_at`, in addition to all written ones.
    given_up: HashSet<OwnedName>,
    confirm_at: Option<Instant>,
    /// Other nodes may not have known the routes, and are not known to know them yet.
    were_lost: bool,
    /// Callers that wait until a name is written. They are woken by dropping the sender.
    waiters: HashMap<OwnedName, Vec<oneshot::Sender<()>>>,
}

impl RouteWriter {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>, node: Arc<dyn LocalNode>) -> Self {
        Self {
            commands,
            keys,
            node,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Marks `name` because its state may have changed.
    pub(super) fn changed(&self, name: RouteName<'_>) {
        self.state().changed.insert(name.into());
        self.wake.notify_one();
    }

    /// Marks `name` because its route in Redis seems to be wrong.
    pub(super) fn invalidate(&self, name: RouteName<'_>) {
        let name = OwnedName::from(name);
        let mut state = self.state();
        state.written.insert(name.clone(), Written::Unknown);
        state.changed.insert(name);
        drop(state);
        self.wake.notify_one();
    }

    /// Marks everything that is written, now and again soon, because others may have removed it.
    pub(super) fn assert_all(&self) {
        let mut state = self.state();
        state.doubt_all();
        state.were_lost = true;
        state.confirm_at = Some(Instant::now() + CONFIRM_AFTER);
        drop(state);
        self.wake.notify_one();
    }

    /// Marks everything that is written, so that anything lost is restored.
    pub(super) fn renew_all(&self) {
        self.state().doubt_all();
    }

    /// Returns when the current state of `name` is written, or cannot be written now.
    pub(super) async fn flushed(&self, name: RouteName<'_>) {
        if self.commands.topology().is_err() {
            return;
        }
        let name = OwnedName::from(name);
        let (done, written) = oneshot::channel();
        {
            let mut state = self.state();
            if !state.is_pending(&name) {
                return;
            }
            state.waiters.entry(name).or_default().push(done);
        }
        let _ = timeout(self.keys.command_timeout(), written).await;
    }

    /// Returns when there may be something to write.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Whether everything is written.
    pub(super) fn is_idle(&self) -> bool {
        self.state().changed.is_empty()
    }

    /// All routes are written. If they may have been lost, this node may have missed messages of histories.
    pub(super) fn restored(&self) {
        let were_lost = std::mem::take(&mut self.state().were_lost);
        if were_lost {
            self.node.check_histories();
        }
    }

    /// When [`RouteWriter::confirm`] is due.
    pub(super) fn confirm_at(&self) -> Option<Instant> {
        self.state().confirm_at
    }

    /// Marks everything that must be written again.
    pub(super) fn confirm(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.confirm_at = None;
        state.were_lost = true;
        for name in state.given_up.drain() {
            state.written.insert(name, Written::Unknown);
        }
        state.doubt_all();
    }

    /// Writes some of the marked names, and notifies the other nodes of those that changed.
    pub(super) async fn write_batch(&self) -> Result<(), Unavailable> {
        let (batch, commands) = self.take_batch();
        let result = self.commands.run_all(commands).await;
        if result.is_ok() {
            let changed = batch.iter().filter(|look| look.changed);
            let notice = notice(changed.map(|look| &look.name));
            self.give(notice).await;
        }
        self.conclude(batch, result.is_ok());
        result.map(drop)
    }

    /// Notifies the other nodes. If the notice is lost, they use the old route until it expires.
    async fn give(&self, notice: Option<String>) {
        if let Some(notice) = notice {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(self.keys.routes_channel()).arg(notice);
            let _ = self.commands.run_once::<()>(&publish).await;
        }
    }

    /// Removes all routes and the lease. The writer must have ended.
    pub(super) async fn withdraw(&self) {
        let names: Vec<OwnedName> = {
            let mut state = self.state();
            let state = &mut *state;
            state.waiters.clear();
            state.changed.clear();
            let written = state.written.drain().map(|(name, _)| name);
            // A batch that was cut off may have arrived.
            let cut_off = state.writing.drain().chain(state.given_up.drain());
            written.chain(cut_off).collect()
        };
        for batch in names.chunks(BATCH) {
            let commands = batch.iter().flat_map(|name| self.remove(name)).collect();
            if self.commands.run_all(commands).await.is_err() {
                break;
            }
            self.give(notice(batch.iter())).await;
        }
        let mut lease = redis::cmd("DEL");
        lease.arg(self.keys.lease(self.keys.own_id()));
        let _ = self.commands.run::<()>(&lease).await;
    }

    fn holds(&self, name: &OwnedName) -> bool {
        match name {
            OwnedName::User(user) => self.node.holds_user(user),
            OwnedName::Room(room) => self.node.holds_room(room),
        }
    }

    /// The next names to write, and the commands that write their state. Clears their marks.
    fn take_batch(&self) -> (Vec<BatchItem>, Vec<Cmd>) {
        let mut state = self.state();
        let state = &mut *state;
        let names: Vec<OwnedName> = state.changed.iter().take(BATCH).cloned().collect();
        let mut commands = Vec::new();
        let mut batch = Vec::with_capacity(names.len());
        for name in names {
            state.changed.remove(&name);
            // After the mark is cleared: any later change marks the name again.
            let holds = self.holds(&name);
            match state.written.get(&name) {
                None if !holds => {}
                Some(Written::Yes) if holds => {}
                _ if holds => commands.extend(self.add(&name)),
                _ => commands.extend(self.remove(&name)),
            }
            let changed = match state.written.get(&name) {
                None => holds,
                Some(Written::Yes) => !holds,
                Some(Written::Unknown) => !holds || state.given_up.contains(&name),
            };
            state.writing.insert(name.clone());
            batch.push(BatchItem {
                name,
                holds,
                changed,
            });
        }
        (batch, commands)
    }

    fn conclude(&self, batch: Vec<BatchItem>, done: bool) {
        let mut state = self.state();
        let state = &mut *state;
        for BatchItem { name, holds, .. } in batch {
            state.writing.remove(&name);
            if !done {
                state.written.insert(name.clone(), Written::Unknown);
                state.given_up.insert(name.clone());
                state.changed.insert(name);
            } else {
                if !state.changed.contains(&name) {
                    state.waiters.remove(&name);
                }
                if holds {
                    state.written.insert(name, Written::Yes);
                } else {
                    state.written.remove(&name);
                }
            }
        }
        if !done {
            // Nobody should wait for something that may take long.
            state.waiters.clear();
            state.confirm_at = Some(Instant::now() + CONFIRM_AFTER);
        }
    }

    fn add(&self, name: &OwnedName) -> Vec<Cmd> {
        let mut commands = vec![self.on_route("SADD", name)];
        if let (RedisCompat::WebsocketApp, OwnedName::User(user)) = (self.keys.compat(), name) {
            let mut online = redis::cmd("SET");
            online
                .arg(self.keys.online(user, self.keys.own_id()))
                .arg(1)
                .arg("EX")
                .arg(ONLINE_TTL.as_secs());
            commands.push(online);
        }
        commands
    }

    fn remove(&self, name: &OwnedName) -> Vec<Cmd> {
        let mut commands = vec![self.on_route("SREM", name)];
        if let (RedisCompat::WebsocketApp, OwnedName::User(user)) = (self.keys.compat(), name) {
            let mut offline = redis::cmd("DEL");
            offline.arg(self.keys.online(user, self.keys.own_id()));
            commands.push(offline);
        }
        commands
    }

    fn on_route(&self, command: &str, name: &OwnedName) -> Cmd {
        let mut command = redis::cmd(command);
        command
            .arg(self.keys.route(name.into()))
            .arg(&**self.keys.own_id());
        command
    }

    fn state(&self) -> MutexGuard<'_, RouteState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The notice that the routes of `names` changed; `None` if there are no names.
fn notice<'o>(names: impl Iterator<Item = &'o OwnedName>) -> Option<String> {
    let mut names = names.map(RouteName::from).peekable();
    names.peek().is_some().then(|| notices::text(names))
}

impl RouteState {
    fn is_pending(&self, name: &OwnedName) -> bool {
        self.changed.contains(name) || self.writing.contains(name)
    }

    fn doubt_all(&mut self) {
        for (name, written) in &mut self.written {
            *written = Written::Unknown;
            self.changed.insert(name.clone());
        }
    }
}

impl From<RouteName<'_>> for OwnedName {
    fn from(name: RouteName<'_>) -> Self {
        match name {
            RouteName::User(user) => Self::User(user.into()),
            RouteName::Room(room) => Self::Room(room.into()),
        }
    }
}

impl<'a> From<&'a OwnedName> for RouteName<'a> {
    fn from(name: &'a OwnedName) -> Self {
        match name {
            OwnedName::User(user) => Self::User(user),
            OwnedName::Room(room) => Self::Room(room),
        }
    }
}

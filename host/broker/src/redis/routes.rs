//! The routes of this server, and its members of rooms: the users and rooms that it holds, written as differences to what was
//! written before.
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
    member_fields,
    notices::ChangedNames,
    owned::{HeldName, MarkedNames, OwnedName},
    written::{Written, WrittenNames},
};
use crate::LocalNode;

/// The most names that are written together.
const BATCH: usize = 256;

/// After a new link, an expired lease or a failed batch, everything concerned is written again after this pause: a command
/// that was given up may still be carried out late, and another node may be about to remove a server that it saw dead.
const CONFIRM_AFTER: Duration = Duration::from_secs(2);

/// How long `websocket-app` believes that a user is online.
const ONLINE_TTL: Duration = Duration::from_secs(60);

/// The state of a name when its batch was made.
struct BatchItem {
    name: OwnedName,
    /// Whether this node holds it.
    holds: bool,
    /// Whether what other nodes know may be outdated.
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
    changed: MarkedNames,
    /// Names that are under way to Redis.
    writing: HashSet<OwnedName>,
    written: WrittenNames,
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
        self.mark(name.into());
    }

    /// Marks `user` as a member of `room`; see [`RouteWriter::changed`].
    pub(super) fn member_changed(&self, room: &str, user: &str) {
        self.mark(OwnedName::member(room, user));
    }

    /// Marks `name` because its route in Redis seems to be wrong.
    pub(super) fn invalidate(&self, name: RouteName<'_>) {
        let name = OwnedName::from(name);
        let mut state = self.state();
        state.written.set(name.clone(), Written::Unknown);
        state.changed.mark(name);
        drop(state);
        self.wake.notify_one();
    }

    /// Marks everything that is written, now and again soon, because others may have removed it.
    pub(super) fn assert_all(&self) {
        let mut state = self.state();
        state.doubt(|_| true);
        state.were_lost = true;
        state.confirm_at = Some(Instant::now() + CONFIRM_AFTER);
        drop(state);
        self.wake.notify_one();
    }

    /// Marks all routes that are written, so that anything lost is restored. Members of rooms may be very many, and are
    /// restored by [`RouteWriter::assert_all`] only.
    pub(super) fn renew_routes(&self) {
        self.state().doubt(|name| !name.is_member());
    }

    /// Returns when the current state of `name` is written, or cannot be written now.
    pub(super) async fn flushed(&self, name: RouteName<'_>) {
        self.name_flushed(name.into()).await;
    }

    /// Like [`RouteWriter::flushed`], for a member of a room.
    pub(super) async fn member_flushed(&self, room: &str, user: &str) {
        self.name_flushed(OwnedName::member(room, user)).await;
    }

    async fn name_flushed(&self, name: OwnedName) {
        if self.commands.topology().is_err() {
            return;
        }
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

    /// How many members of `room` this server has written, at least.
    pub(super) fn written_members(&self, room: &str) -> usize {
        self.state().written.members(room)
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
            state.written.set(name, Written::Unknown);
        }
        state.doubt(|_| true);
    }

    /// Writes some of the marked names, and notifies the other nodes of those that changed.
    pub(super) async fn write_batch(&self) -> Result<(), Unavailable> {
        let (batch, commands) = self.take_batch();
        if let Err(error) = self.commands.run_all(commands).await {
            self.conclude(batch, |_| false);
            return Err(error);
        }
        let changed = batch.iter().filter(|item| item.changed);
        let notice = notice(changed.map(|item| &item.name));
        let given = self.give(notice).await;
        // If the notice is lost, other nodes use the old route until it expires, but nothing makes them read members again.
        let has_members = batch.iter().any(|item| item.name.is_member());
        self.conclude(batch, |name| given.is_ok() || !name.is_member());
        if has_members { given } else { Ok(()) }
    }

    /// Notifies the other nodes.
    async fn give(&self, notice: Option<String>) -> Result<(), Unavailable> {
        let Some(notice) = notice else {
            return Ok(());
        };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.keys.routes_channel()).arg(notice);
        self.commands.run_once(&publish).await
    }

    /// Removes all routes, all members, and the lease. The writer must have ended.
    pub(super) async fn withdraw(&self) {
        let names: Vec<OwnedName> = {
            let mut state = self.state();
            let state = &mut *state;
            state.waiters.clear();
            state.changed.clear();
            let written = state.written.drain();
            // A batch that was cut off may have arrived.
            let cut_off = state.writing.drain().chain(state.given_up.drain());
            written.chain(cut_off).collect()
        };
        for batch in names.chunks(BATCH) {
            let commands = batch.iter().flat_map(|name| self.remove(name)).collect();
            if self.commands.run_all(commands).await.is_err() {
                break;
            }
            let _ = self.give(notice(batch.iter())).await;
        }
        let mut lease = redis::cmd("DEL");
        lease.arg(self.keys.lease(self.keys.own_id()));
        let _ = self.commands.run::<()>(&lease).await;
    }

    /// The state of `name`; `None` if this node does not hold it.
    fn look_up(&self, name: &OwnedName) -> Option<HeldName> {
        match name {
            OwnedName::User(user) => self.node.holds_user(user).then_some(HeldName::Route),
            OwnedName::Room(room) => self.node.holds_room(room).then_some(HeldName::Route),
            OwnedName::Member { room, user } => self.node.member(room, user).map(HeldName::Member),
        }
    }

    /// The next names to write, and the commands that write their state. Clears their marks.
    fn take_batch(&self) -> (Vec<BatchItem>, Vec<Cmd>) {
        let mut state = self.state();
        let state = &mut *state;
        let names = state.changed.take(BATCH);
        let mut commands = Vec::new();
        let mut batch = Vec::with_capacity(names.len());
        for name in names {
            // After the mark is cleared: any later change marks the name again.
            let held = self.look_up(&name);
            let written = state.written.get(&name);
            match (written, &held) {
                (None, None) | (Some(Written::Yes), Some(HeldName::Route)) => {}
                (_, Some(held)) => commands.extend(self.add(&name, held)),
                (_, None) => commands.extend(self.remove(&name)),
            }
            let holds = held.is_some();
            let changed = match written {
                // Others may have read the room while it was lost.
                _ if name.is_member() => holds || written.is_some(),
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

    /// Notes which names of `batch` are `done`; the others are written again.
    fn conclude(&self, batch: Vec<BatchItem>, done: impl Fn(&OwnedName) -> bool) {
        let mut state = self.state();
        let state = &mut *state;
        let mut all_done = true;
        for BatchItem { name, holds, .. } in batch {
            state.writing.remove(&name);
            if !done(&name) {
                all_done = false;
                state.written.set(name.clone(), Written::Unknown);
                state.given_up.insert(name.clone());
                state.changed.mark(name);
            } else {
                if !state.changed.contains(&name) {
                    state.waiters.remove(&name);
                }
                if holds {
                    state.written.set(name, Written::Yes);
                } else {
                    state.written.remove(&name);
                }
            }
        }
        if !all_done {
            // Nobody should wait for something that may take long.
            state.waiters.clear();
            state.confirm_at = Some(Instant::now() + CONFIRM_AFTER);
        }
    }

    fn add(&self, name: &OwnedName, held: &HeldName) -> Vec<Cmd> {
        let mut add = self.on_name(["SADD", "HSET"], name);
        if let HeldName::Member(member) = held {
            add.arg(member_fields::value(member));
        }
        let mut commands = vec![add];
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
        let mut commands = vec![self.on_name(["SREM", "HDEL"], name)];
        if let (RedisCompat::WebsocketApp, OwnedName::User(user)) = (self.keys.compat(), name) {
            let mut offline = redis::cmd("DEL");
            offline.arg(self.keys.online(user, self.keys.own_id()));
            commands.push(offline);
        }
        commands
    }

    /// The first command on a route, or the second one on a member of a room.
    fn on_name(&self, [on_route, on_member]: [&str; 2], name: &OwnedName) -> Cmd {
        let own = self.keys.own_id();
        let (command, key, element) = match name {
            OwnedName::User(user) => {
                let key = self.keys.route(RouteName::User(user));
                (on_route, key, own.to_string())
            }
            OwnedName::Room(room) => {
                let key = self.keys.route(RouteName::Room(room));
                (on_route, key, own.to_string())
            }
            OwnedName::Member { room, user } => {
                let field = member_fields::name(own, user);
                (on_member, self.keys.members(room), field)
            }
        };
        let mut command = redis::cmd(command);
        command.arg(key).arg(element);
        command
    }

    fn mark(&self, name: OwnedName) {
        self.state().changed.mark(name);
        self.wake.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, RouteState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The notice that `names` changed; `None` if there are no names.
fn notice<'o>(names: impl Iterator<Item = &'o OwnedName>) -> Option<String> {
    let mut changed = ChangedNames::default();
    for name in names {
        match name {
            OwnedName::User(user) => changed.users.push(user),
            OwnedName::Room(room) => changed.rooms.push(room),
            OwnedName::Member { room, .. } => {
                changed.members.insert(room);
            }
        }
    }
    changed.text()
}

impl RouteState {
    fn is_pending(&self, name: &OwnedName) -> bool {
        self.changed.contains(name) || self.writing.contains(name)
    }

    /// Marks the written names that `may_be_lost`.
    fn doubt(&mut self, may_be_lost: impl Fn(&OwnedName) -> bool) {
        for name in self.written.doubt(may_be_lost) {
            self.changed.mark(name);
        }
    }
}

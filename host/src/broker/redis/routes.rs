//! The one writer of this server's routes.
//!
//! Connects and disconnects only mark a name as changed. The writer looks what holds *now*, compares it with what it
//! wrote last, and sends the difference in batches. So any number of connections of one user may come and go in any
//! order: the last look is right, and the route goes with the last connection and never before.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Cmd;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tracing::info;

use super::{
    health::Health,
    keys::{Keys, Name},
};
use crate::{broker::LocalNode, config::RedisCompat, redis_client::{Commands, Unavailable}};

/// Names that are written together.
const BATCH: usize = 256;

/// Pause after a batch that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// After a new link or a lapsed lease everything is written twice, the second time after this pause: a command that was
/// given up may still be carried out late, and another node may be about to take out a server that it saw dead.
const ASSERT_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How long `websocket-app` believes that a user is online, and how often that is renewed.
const ONLINE_TTL: Duration = Duration::from_secs(60);
const ONLINE_INTERVAL: Duration = Duration::from_secs(30);

/// A [`Name`] that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owned {
    User(Box<str>),
    Room(Box<str>),
}

/// What is known to stand in Redis; a name that is absent does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// A command failed, and it cannot be told whether it was carried out.
    Unknown,
}

/// Marks for the writer, and what it has done.
pub(super) struct Routes {
    commands: Commands,
    keys: Arc<Keys>,
    node: Arc<dyn LocalNode>,
    health: Arc<Health>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    changed: HashSet<Owned>,
    writing: HashSet<Owned>,
    written: HashMap<Owned, Written>,
    waiters: Vec<(Owned, oneshot::Sender<()>)>,
    assert_again_at: Option<Instant>,
    assert_all: bool,
}

impl Routes {
    pub(super) fn new(
        commands: Commands,
        keys: Arc<Keys>,
        node: Arc<dyn LocalNode>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            commands,
            keys,
            node,
            health,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Marks `name`: something about it may be different now.
    pub(super) fn changed(&self, name: Name<'_>) {
        self.state().changed.insert(name.into());
        self.wake.notify_one();
    }

    /// Marks all that was ever written.
    pub(super) fn assert_all(&self) {
        let mut state = self.state();
        state.assert_all = true;
        state.assert_again_at = Some(Instant::now() + ASSERT_AGAIN_AFTER);
        drop(state);
        self.wake.notify_one();
    }

    /// Returns when what holds for `name` is written, or cannot be written now.
    pub(super) async fn settled(&self, name: Name<'_>) {
        if self.commands.status().is_err() {
            return;
        }
        let name = Owned::from(name);
        let written = {
            let mut state = self.state();
            if !state.changed.contains(&name) && !state.writing.contains(&name) {
                return;
            }
            let (done, written) = oneshot::channel();
            state.waiters.push((name, done));
            written
        };
        // An error means that the writer is gone.
        let _ = written.await;
    }

    /// Takes away all routes and the lease. The writer must have ended.
    pub(super) async fn withdraw(&self) {
        let names: Vec<Owned> = {
            let mut state = self.state();
            state.waiters.clear();
            state.written.drain().map(|(name, _)| name).collect()
        };
        for batch in names.chunks(BATCH) {
            let commands = batch.iter().flat_map(|name| self.remove(name)).collect();
            if self.commands.run_all(commands).await.is_err() {
                break;
            }
        }
        let mut lease = redis::cmd("DEL");
        lease.arg(self.keys.lease(self.keys.own_id()));
        let _ = self.commands.run::<()>(&lease).await;
    }

    fn holds(&self, name: &Owned) -> bool {
        match name {
            Owned::User(user) => self.node.holds_user(user),
            Owned::Room(room) => self.node.holds_room(room),
        }
    }

    /// The next names to write, with whether each holds; the marks are taken.
    fn take_batch(&self) -> Vec<(Owned, bool)> {
        let mut state = self.state();
        let state = &mut *state;
        if std::mem::take(&mut state.assert_all) {
            for (name, written) in &mut state.written {
                *written = Written::Unknown;
                state.changed.insert(name.clone());
            }
        }
        let names: Vec<Owned> = state.changed.iter().take(BATCH).cloned().collect();
        for name in &names {
            state.changed.remove(name);
            state.writing.insert(name.clone());
        }
        // Asked after the mark is gone: whoever changes something from here on marks it again.
        names
            .into_iter()
            .map(|name| {
                let holds = self.holds(&name);
                (name, holds)
            })
            .collect()
    }

    async fn write_batch(&self) -> Result<(), Unavailable> {
        let batch = self.take_batch();
        let commands = {
            let state = self.state();
            let different = batch.iter().filter(|(name, holds)| match state.written.get(name) {
                None => *holds,
                Some(Written::Yes) => !*holds,
                Some(Written::Unknown) => true,
            });
            different
                .flat_map(|(name, holds)| if *holds { self.add(name) } else { self.remove(name) })
                .collect()
        };
        let result = self.commands.run_all(commands).await;
        self.conclude(batch, result.is_ok());
        result.map(drop)
    }

    fn conclude(&self, batch: Vec<(Owned, bool)>, done: bool) {
        let mut state = self.state();
        let state = &mut *state;
        for (name, holds) in batch {
            state.writing.remove(&name);
            match (done, holds) {
                (true, true) => drop(state.written.insert(name, Written::Yes)),
                (true, false) => drop(state.written.remove(&name)),
                (false, _) => {
                    state.written.insert(name.clone(), Written::Unknown);
                    state.changed.insert(name);
                }
            }
        }
        // Where it failed, nobody is to wait for what may take long.
        state.waiters.retain_mut(|(name, done_sender)| {
            let waits = done && (state.changed.contains(name) || state.writing.contains(name));
            if !waits {
                let (unused, _) = oneshot::channel();
                let _ = std::mem::replace(done_sender, unused).send(());
            }
            waits
        });
    }

    fn add(&self, name: &Owned) -> Vec<Cmd> {
        let mut add = redis::cmd("SADD");
        add.arg(self.keys.route(name.into())).arg(&**self.keys.own_id());
        let mut commands = vec![add];
        commands.extend(self.online(name));
        commands
    }

    fn remove(&self, name: &Owned) -> Vec<Cmd> {
        let mut remove = redis::cmd("SREM");
        remove.arg(self.keys.route(name.into())).arg(&**self.keys.own_id());
        let mut commands = vec![remove];
        if let (RedisCompat::WebsocketApp, Owned::User(user)) = (self.keys.compat(), name) {
            let mut offline = redis::cmd("DEL");
            offline.arg(self.keys.online(user, self.keys.own_id()));
            commands.push(offline);
        }
        commands
    }

    /// What `websocket-app` wants beside the route.
    fn online(&self, name: &Owned) -> Option<Cmd> {
        let (RedisCompat::WebsocketApp, Owned::User(user)) = (self.keys.compat(), name) else {
            return None;
        };
        let mut online = redis::cmd("SET");
        online
            .arg(self.keys.online(user, self.keys.own_id()))
            .arg(1)
            .arg("EX")
            .arg(ONLINE_TTL.as_secs());
        Some(online)
    }

    async fn renew_online(&self) -> Result<(), Unavailable> {
        let users: Vec<Owned> = {
            let state = self.state();
            let users = state.written.keys().filter(|name| matches!(name, Owned::User(_)));
            users.cloned().collect()
        };
        for batch in users.chunks(BATCH) {
            // One that went meanwhile must not come back to life.
            let held = batch.iter().filter(|name| self.holds(name));
            let commands = held.filter_map(|name| self.online(name)).collect();
            self.commands.run_all(commands).await?;
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        let state = self.state();
        state.changed.is_empty() && !state.assert_all
    }

    fn assert_again_at(&self) -> Option<Instant> {
        self.state().assert_again_at
    }

    fn assert_again(&self) {
        let mut state = self.state();
        state.assert_again_at = None;
        state.assert_all = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until it is aborted.
pub(super) async fn write(routes: Arc<Routes>) {
    let mut links = routes.commands.links();
    let mut link = 0;
    let mut renew_online_at = Instant::now() + ONLINE_INTERVAL;
    loop {
        if links.wait_for(|link| *link != 0).await.is_err() {
            return;
        }
        let now = *links.borrow_and_update();
        if now != link {
            if link != 0 {
                info!("a new link to Redis; all routes are written anew");
            }
            link = now;
            routes.assert_all();
        }
        if !routes.is_idle() {
            match routes.write_batch().await {
                Ok(()) => {
                    if routes.is_idle() {
                        routes.health.routes_written();
                    }
                }
                Err(error) => {
                    routes.health.routes_late(&error.to_string());
                    sleep(RETRY_PAUSE).await;
                }
            }
            continue;
        }
        if Instant::now() >= renew_online_at {
            renew_online_at = match routes.renew_online().await {
                Ok(()) => Instant::now() + ONLINE_INTERVAL,
                Err(_) => Instant::now() + RETRY_PAUSE,
            };
        }
        let again_at = routes.assert_again_at();
        tokio::select! {
            () = routes.wake.notified() => {}
            () = sleep_until(renew_online_at) => {}
            () = sleep_until(again_at.unwrap_or(renew_online_at)), if again_at.is_some() => routes.assert_again(),
            _ = links.changed() => {}
        }
    }
}

impl From<Name<'_>> for Owned {
    fn from(name: Name<'_>) -> Self {
        match name {
            Name::User(user) => Self::User(user.into()),
            Name::Room(room) => Self::Room(room.into()),
        }
    }
}

impl<'a> From<&'a Owned> for Name<'a> {
    fn from(name: &'a Owned) -> Self {
        match name {
            Owned::User(user) => Self::User(user),
            Owned::Room(room) => Self::Room(room),
        }
    }
}

//! Where a user or a room is, as Redis says, kept for a moment.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use futures_util::{FutureExt, future::{BoxFuture, Shared}};
use tokio::time::Instant;
use tracing::debug;

use super::keys::{Keys, Name, ServerId};
use crate::{config::RedisCompat, metrics::Metrics, redis_client::{Commands, Unavailable}};

/// How long an answer is used. A device that a user adds gets the messages of a sender who knew the others at the
/// latest after it.
const KEEP: Duration = Duration::from_millis(1500);

/// Answers that are kept; over it all are forgotten.
const ENTRIES_MAX: usize = 200_000;

type Servers = Arc<[ServerId]>;
type Question = Shared<BoxFuture<'static, Result<Servers, Unavailable>>>;

/// Answers questions for routes. Of several who ask the same at once, one asks Redis.
pub(super) struct Lookup {
    asker: Arc<Asker>,
    users: DashMap<Box<str>, Entry>,
    rooms: DashMap<Box<str>, Entry>,
}

#[derive(Clone)]
struct Entry {
    asked: Instant,
    question: Question,
}

/// What a question needs of its own, because it goes on when the one who asked is gone.
struct Asker {
    commands: Commands,
    keys: Arc<Keys>,
    metrics: Arc<Metrics>,
    /// Whether a server was alive, and when that was asked.
    leases: DashMap<ServerId, (bool, Instant)>,
}

impl Lookup {
    pub(super) fn new(commands: Commands, keys: Arc<Keys>, metrics: Arc<Metrics>) -> Self {
        Self {
            asker: Arc::new(Asker {
                commands,
                keys,
                metrics,
                leases: DashMap::new(),
            }),
            users: DashMap::new(),
            rooms: DashMap::new(),
        }
    }

    /// The servers that hold `name` and are alive, this one among them.
    pub(super) async fn servers(&self, name: Name<'_>) -> Result<Servers, Unavailable> {
        let (map, text) = self.place(name);
        let known = map.get(text).filter(|entry| entry.asked.elapsed() < KEEP).map(|entry| entry.clone());
        let entry = known.unwrap_or_else(|| self.ask(name));
        let answer = entry.question.await;
        // That somebody is nowhere is not kept: the next message may be the first after they came.
        if answer.as_ref().map_or(true, |servers| servers.is_empty()) {
            map.remove_if(text, |_, other| other.asked == entry.asked);
        }
        answer
    }

    /// Nobody listens at `server`: what was known of it, and of `name`, is not to be used again.
    pub(super) fn forget(&self, name: Name<'_>, server: &ServerId) {
        let (map, text) = self.place(name);
        map.remove(text);
        self.asker.leases.remove(server);
    }

    fn ask(&self, name: Name<'_>) -> Entry {
        let (map, text) = self.place(name);
        if map.len() >= ENTRIES_MAX {
            map.clear();
        }
        let mut entry = map.entry(text.into()).or_insert_with(|| self.question(name));
        if entry.asked.elapsed() >= KEEP {
            *entry = self.question(name);
        }
        entry.clone()
    }

    fn question(&self, name: Name<'_>) -> Entry {
        let asker = self.asker.clone();
        let (is_user, text): (bool, Box<str>) = match name {
            Name::User(user) => (true, user.into()),
            Name::Room(room) => (false, room.into()),
        };
        let question = async move {
            let name = if is_user { Name::User(&text) } else { Name::Room(&text) };
            asker.servers(name).await
        };
        Entry {
            asked: Instant::now(),
            question: question.boxed().shared(),
        }
    }

    fn place<'a>(&'a self, name: Name<'a>) -> (&'a DashMap<Box<str>, Entry>, &'a str) {
        match name {
            Name::User(user) => (&self.users, user),
            Name::Room(room) => (&self.rooms, room),
        }
    }
}

impl Asker {
    async fn servers(&self, name: Name<'_>) -> Result<Servers, Unavailable> {
        self.metrics.redis.route_lookups.increment();
        let route = self.keys.route(name);
        let listed: Vec<String> = self.commands.run(redis::cmd("SMEMBERS").arg(&route)).await?;
        let listed: Vec<ServerId> = listed.into_iter().map(Arc::from).collect();
        let mut alive = self.leased(&listed).await?;
        if self.keys.compat() == RedisCompat::WebsocketApp && let Name::User(user) = name {
            self.add_online(user, &listed, &mut alive).await?;
        }
        let (alive, dead): (Vec<_>, Vec<_>) =
            listed.into_iter().zip(alive).partition(|(_, alive)| *alive);
        let names = |servers: Vec<(ServerId, bool)>| servers.into_iter().map(|(server, _)| server);
        self.prune(&route, names(dead).collect()).await;
        Ok(names(alive).collect())
    }

    /// Whether each of `servers` has a lease.
    async fn leased(&self, servers: &[ServerId]) -> Result<Vec<bool>, Unavailable> {
        let known = |server: &ServerId| {
            let known = self.leases.get(server).map(|entry| *entry);
            known.filter(|(_, asked)| asked.elapsed() < KEEP).map(|(alive, _)| alive)
        };
        let mut alive: Vec<Option<bool>> = servers
            .iter()
            .map(|server| if server == self.keys.own_id() { Some(true) } else { known(server) })
            .collect();
        let open: Vec<usize> = (0..servers.len()).filter(|index| alive[*index].is_none()).collect();
        let questions = open.iter().map(|index| exists(self.keys.lease(&servers[*index]))).collect();
        let answers = self.commands.run_all(questions).await?;
        for (index, answer) in open.into_iter().zip(answers) {
            let lives = is_one(&answer);
            self.leases.insert(servers[index].clone(), (lives, Instant::now()));
            alive[index] = Some(lives);
        }
        Ok(alive.into_iter().map(|alive| alive == Some(true)).collect())
    }

    /// Servers of `websocket-app` have no lease; each of their users has a mark.
    async fn add_online(
        &self,
        user: &str,
        servers: &[ServerId],
        alive: &mut [bool],
    ) -> Result<(), Unavailable> {
        let open: Vec<usize> = (0..servers.len()).filter(|index| !alive[*index]).collect();
        let questions = open.iter().map(|index| exists(self.keys.online(user, &servers[*index]))).collect();
        let answers = self.commands.run_all(questions).await?;
        for (index, answer) in open.into_iter().zip(answers) {
            alive[index] = is_one(&answer);
        }
        Ok(())
    }

    /// A dead server never comes back under its ID, so its routes may go. Where that fails, the next reader does it.
    async fn prune(&self, route: &str, dead: Vec<ServerId>) {
        if dead.is_empty() {
            return;
        }
        debug!(route, ?dead, "servers without a lease are taken out of a route");
        self.metrics.redis.routes_pruned.add(dead.len() as u64);
        let mut remove = redis::cmd("SREM");
        remove.arg(route);
        for server in dead {
            remove.arg(&*server);
        }
        let _ = self.commands.run::<()>(&remove).await;
    }
}

fn exists(key: String) -> redis::Cmd {
    let mut command = redis::cmd("EXISTS");
    command.arg(key);
    command
}

fn is_one(answer: &redis::Value) -> bool {
    matches!(answer, redis::Value::Int(1) | redis::Value::Boolean(true))
}

/// Throws away what is too old to be used, until it is aborted.
pub(super) async fn sweep(lookup: Arc<Lookup>) {
    let mut ticks = tokio::time::interval(KEEP);
    loop {
        ticks.tick().await;
        lookup.users.retain(|_, entry| entry.asked.elapsed() < KEEP);
        lookup.rooms.retain(|_, entry| entry.asked.elapsed() < KEEP);
        lookup.asker.leases.retain(|_, (_, asked)| asked.elapsed() < KEEP);
    }
}

//! Where a user or a room is, as Redis says, kept for a moment.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use redis::Value;
use tokio::time::Instant;
use tracing::debug;

use super::keys::{Keys, LEASE_VALUE, Name, ServerId};
use crate::{
    config::RedisCompat,
    metrics::Metrics,
    redis_client::{Commands, Unavailable},
};

/// How long an answer is used. A device that a user adds gets the messages of a sender who knew the others at the
/// latest after it.
const KEEP: Duration = Duration::from_millis(1500);

/// Answers that are kept; over it all are forgotten.
const ENTRIES_MAX: usize = 200_000;

/// Servers of which it is kept that they take traces; over it all are forgotten.
const TRACED_MAX: usize = 10_000;

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
    /// When a server was seen alive. That one is dead is not kept: it is taken out of the route.
    leases: DashMap<ServerId, Instant>,
    /// Servers that take messages with a trace. That holds as long as the server lives; none where nothing is traced.
    traced: Option<DashMap<ServerId, ()>>,
}

impl Lookup {
    /// `traces`: whether it is to be found out who takes messages with a trace.
    pub(super) fn new(
        commands: Commands,
        keys: Arc<Keys>,
        metrics: Arc<Metrics>,
        traces: bool,
    ) -> Self {
        Self {
            asker: Arc::new(Asker {
                commands,
                keys,
                metrics,
                leases: DashMap::new(),
                traced: traces.then(DashMap::new),
            }),
            users: DashMap::new(),
            rooms: DashMap::new(),
        }
    }

    /// The servers that hold `name` and are alive, this one among them.
    pub(super) async fn servers(&self, name: Name<'_>) -> Result<Servers, Unavailable> {
        let (map, text) = self.place(name);
        let known = map
            .get(text)
            .filter(|entry| entry.asked.elapsed() < KEEP)
            .map(|entry| entry.clone());
        let entry = known.unwrap_or_else(|| self.ask(name));
        let answer = entry.question.clone().await;
        // That somebody is nowhere is not kept: the next message may be the first after they came.
        if answer.as_ref().map_or(true, |servers| servers.is_empty()) {
            map.remove_if(text, |_, other| other.question.ptr_eq(&entry.question));
        }
        answer
    }

    /// The same, of `user`, as Redis says now, and of each whether it is a node: those have a lease.
    pub(super) async fn holders(&self, user: &str) -> Result<Vec<(ServerId, bool)>, Unavailable> {
        self.asker.holders(Name::User(user)).await
    }

    /// Whether `server` is known to take messages with a trace.
    pub(super) fn takes_traces(&self, server: &ServerId) -> bool {
        let traced = self.asker.traced.as_ref();
        traced.is_some_and(|traced| traced.contains_key(server))
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
        let mut entry = map
            .entry(text.into())
            .or_insert_with(|| self.question(name));
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
            let name = if is_user {
                Name::User(&text)
            } else {
                Name::Room(&text)
            };
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
        let holders = self.holders(name).await?;
        Ok(holders.into_iter().map(|(server, _)| server).collect())
    }

    /// The servers that hold `name` and are alive, and of each whether it has a lease.
    async fn holders(&self, name: Name<'_>) -> Result<Vec<(ServerId, bool)>, Unavailable> {
        self.metrics.redis.route_lookups.increment();
        let route = self.keys.route(name);
        let listed: Vec<String> = self
            .commands
            .run(redis::cmd("SMEMBERS").arg(&route))
            .await?;
        let listed: Vec<ServerId> = listed.into_iter().map(Arc::from).collect();
        let leased = self.leased(&listed).await?;
        let mut alive = leased.clone();
        if self.keys.compat() == RedisCompat::WebsocketApp
            && let Name::User(user) = name
        {
            // Servers of `websocket-app` have no lease; each of their users has a mark.
            self.ask(&mut alive, |index| {
                question("EXISTS", self.keys.online(user, &listed[index]))
            })
            .await?;
        }
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for ((server, alive), leased) in listed.into_iter().zip(alive).zip(leased) {
            if alive {
                living.push((server, leased));
            } else {
                dead.push(server);
            }
        }
        self.prune(&route, dead).await;
        Ok(living)
    }

    /// Whether each of `servers` has a lease.
    async fn leased(&self, servers: &[ServerId]) -> Result<Vec<bool>, Unavailable> {
        let is_known = |server: &ServerId| {
            let seen = self.leases.get(server).map(|seen| *seen);
            server == self.keys.own_id() || seen.is_some_and(|seen| seen.elapsed() < KEEP)
        };
        let mut alive: Vec<bool> = servers.iter().map(is_known).collect();
        let command = if self.traced.is_some() {
            "GET"
        } else {
            "EXISTS"
        };
        let answers = self
            .ask(&mut alive, |index| {
                question(command, self.keys.lease(&servers[index]))
            })
            .await?;
        for (index, answer) in answers.into_iter().filter(|(index, _)| alive[*index]) {
            self.leases.insert(servers[index].clone(), Instant::now());
            self.note_abilities(&servers[index], &answer);
        }
        Ok(alive)
    }

    /// Keeps what the lease of `server` says that it can.
    fn note_abilities(&self, server: &ServerId, lease: &Value) {
        if let Some(traced) = &self.traced
            && *lease == Value::BulkString(LEASE_VALUE.into())
        {
            if traced.len() >= TRACED_MAX {
                traced.clear();
            }
            traced.insert(server.clone(), ());
        }
    }

    /// Asks about each that is not `alive`, which it is where its key is there. Returns which they were, and the answers.
    async fn ask(
        &self,
        alive: &mut [bool],
        question: impl Fn(usize) -> redis::Cmd,
    ) -> Result<Vec<(usize, Value)>, Unavailable> {
        let open: Vec<usize> = (0..alive.len()).filter(|index| !alive[*index]).collect();
        let questions = open.iter().map(|index| question(*index)).collect();
        let answers = self.commands.run_all(questions).await?;
        let answers: Vec<_> = open.into_iter().zip(answers).collect();
        for (index, answer) in &answers {
            alive[*index] = matches!(answer, Value::Int(1) | Value::BulkString(_));
        }
        Ok(answers)
    }

    /// A dead server never comes back under its ID, so its routes may go. Where that fails, the next reader does it.
    async fn prune(&self, route: &str, dead: Vec<ServerId>) {
        if dead.is_empty() {
            return;
        }
        debug!(
            route,
            ?dead,
            "servers without a lease are taken out of a route"
        );
        self.metrics.redis.routes_pruned.add(dead.len() as u64);
        let mut remove = redis::cmd("SREM");
        remove.arg(route);
        for server in dead {
            remove.arg(&*server);
        }
        let _ = self.commands.run::<()>(&remove).await;
    }
}

/// `EXISTS`, or `GET`, of a key.
fn question(command: &str, key: String) -> redis::Cmd {
    let mut command = redis::cmd(command);
    command.arg(key);
    command
}

/// Throws away what is too old to be used, until it is aborted.
pub(super) async fn sweep(lookup: &Lookup) {
    let mut ticks = tokio::time::interval(KEEP);
    loop {
        ticks.tick().await;
        lookup.users.retain(|_, entry| entry.asked.elapsed() < KEEP);
        lookup.rooms.retain(|_, entry| entry.asked.elapsed() < KEEP);
        lookup.asker.leases.retain(|_, seen| seen.elapsed() < KEEP);
    }
}

//! The nodes that hold a user or a room, according to Redis.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use dashmap::DashMap;
use redis::Value;
use signalbox_config::RedisCompat;
use signalbox_redis_client::{Commands, Unavailable};
use signalbox_telemetry::metrics::Metrics;
use tokio::time::Instant;
use tracing::debug;

use super::keys::{Ability, KeyNames, RouteName, ServerId};

/// How long a server counts as alive after it was seen alive.
const LEASE_KEPT: Duration = Duration::from_millis(1500);

/// The most servers whose abilities are kept; beyond it all are forgotten.
const ABILITIES_MAX: usize = 10_000;

/// The most routes that are read in one pipeline.
const ROUTES_BATCH: usize = 256;

/// Reads routes and leases, and removes dead servers from routes.
pub(super) struct Holders {
    commands: Commands,
    keys: Arc<KeyNames>,
    metrics: Arc<Metrics>,
    /// When a server was last seen alive. A dead one is not kept: it is removed from the route.
    leases: DashMap<ServerId, Instant>,
    /// The abilities that a server's lease announces. They hold as long as the server lives.
    abilities: DashMap<ServerId, Ability>,
}

impl Holders {
    pub(super) fn new(commands: Commands, keys: Arc<KeyNames>, metrics: Arc<Metrics>) -> Self {
        Self {
            commands,
            keys,
            metrics,
            leases: DashMap::new(),
            abilities: DashMap::new(),
        }
    }

    /// The servers that hold `name` and are alive, each with whether it has a lease: nodes have one, servers of
    /// `websocket-app` do not.
    pub(super) async fn of(
        &self,
        name: RouteName<'_>,
    ) -> Result<Vec<(ServerId, bool)>, Unavailable> {
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
            && let RouteName::User(user) = name
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

    /// Whether each of `names` is held by another server that is alive, in the same order.
    pub(super) async fn hold_elsewhere(
        &self,
        names: impl Iterator<Item = RouteName<'_>>,
    ) -> Result<Vec<bool>, Unavailable> {
        let names: Vec<RouteName<'_>> = names.collect();
        let mut held = Vec::with_capacity(names.len());
        for batch in names.chunks(ROUTES_BATCH) {
            held.extend(self.hold_batch_elsewhere(batch).await?);
        }
        Ok(held)
    }

    async fn hold_batch_elsewhere(
        &self,
        names: &[RouteName<'_>],
    ) -> Result<Vec<bool>, Unavailable> {
        self.metrics.redis.route_lookups.add(names.len() as u64);
        let reads = names
            .iter()
            .map(|name| question("SMEMBERS", self.keys.route(*name)));
        let answers = self.commands.run_all(reads.collect()).await?;
        let routes = answers.into_iter().map(|answer| self.others(answer));
        let routes: Vec<Vec<ServerId>> = routes.collect::<Result<_, _>>()?;
        let servers: BTreeSet<ServerId> = routes.iter().flatten().cloned().collect();
        let servers = Vec::from_iter(servers);
        let leased = self.leased(&servers).await?;
        let leased = servers.iter().zip(leased).filter(|(_, leased)| *leased);
        let leased: HashSet<&ServerId> = leased.map(|(server, _)| server).collect();
        let is_held = |route: &Vec<ServerId>| route.iter().any(|server| leased.contains(server));
        let mut held: Vec<bool> = routes.iter().map(is_held).collect();
        if self.keys.compat() == RedisCompat::WebsocketApp {
            self.look_for_marks(names, &routes, &mut held).await?;
        }
        Ok(held)
    }

    /// Servers of `websocket-app` have no lease; each of their users has a mark. Looks for the marks of the users among
    /// `names` that are not `held` otherwise.
    async fn look_for_marks(
        &self,
        names: &[RouteName<'_>],
        routes: &[Vec<ServerId>],
        held: &mut [bool],
    ) -> Result<(), Unavailable> {
        let open = routes.iter().enumerate().filter(|(index, _)| !held[*index]);
        let places = open.filter_map(|(index, route)| match names[index] {
            RouteName::User(user) => Some(route.iter().map(move |server| (index, user, server))),
            RouteName::Room(_) => None,
        });
        let places: Vec<(usize, &str, &ServerId)> = places.flatten().collect();
        let mut marked = vec![false; places.len()];
        self.ask(&mut marked, |place| {
            let (_, user, server) = places[place];
            question("EXISTS", self.keys.online(user, server))
        })
        .await?;
        for ((index, ..), marked) in places.iter().zip(marked) {
            held[*index] |= marked;
        }
        Ok(())
    }

    /// The servers of a route, without this one.
    fn others(&self, route: Value) -> Result<Vec<ServerId>, Unavailable> {
        let servers: Vec<String> = redis::from_redis_value(route).map_err(|error| {
            Unavailable::new(format!("Redis returned an unexpected answer: {error}"))
        })?;
        let others = servers
            .into_iter()
            .filter(|server| **server != **self.keys.own_id());
        Ok(others.map(ServerId::from).collect())
    }

    /// Separates the servers that have a lease from those that have none.
    pub(super) async fn by_life(
        &self,
        servers: Vec<ServerId>,
    ) -> Result<(Vec<ServerId>, Vec<ServerId>), Unavailable> {
        let leased = self.leased(&servers).await?;
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for (server, leased) in servers.into_iter().zip(leased) {
            let side = if leased { &mut living } else { &mut dead };
            side.push(server);
        }
        Ok((living, dead))
    }

    /// Whether `server` is known to understand `ability`.
    pub(super) fn can(&self, server: &ServerId, ability: Ability) -> bool {
        let known = self.abilities.get(server);
        known.is_some_and(|known| *known >= ability)
    }

    /// Nobody listens at `server`: its lease must be read again.
    pub(super) fn recheck(&self, server: &ServerId) {
        self.leases.remove(server);
    }

    /// Removes entries that are too old to be used.
    pub(super) fn sweep(&self) {
        self.leases.retain(|_, seen| seen.elapsed() < LEASE_KEPT);
    }

    /// Whether each of `servers` has a lease.
    async fn leased(&self, servers: &[ServerId]) -> Result<Vec<bool>, Unavailable> {
        let is_known = |server: &ServerId| {
            let seen = self.leases.get(server).map(|seen| *seen);
            server == self.keys.own_id() || seen.is_some_and(|seen| seen.elapsed() < LEASE_KEPT)
        };
        let mut alive: Vec<bool> = servers.iter().map(is_known).collect();
        let answers = self
            .ask(&mut alive, |index| {
                question("GET", self.keys.lease(&servers[index]))
            })
            .await?;
        for (index, answer) in answers.into_iter().filter(|(index, _)| alive[*index]) {
            self.leases.insert(servers[index].clone(), Instant::now());
            self.note_ability(&servers[index], &answer);
        }
        Ok(alive)
    }

    fn note_ability(&self, server: &ServerId, lease: &Value) {
        let Value::BulkString(lease) = lease else {
            return;
        };
        if self.abilities.len() >= ABILITIES_MAX {
            self.abilities.clear();
        }
        self.abilities
            .insert(server.clone(), Ability::in_lease(lease));
    }

    /// Asks about each server that is not `alive` yet. It is if its key exists. Returns their indices and the answers.
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

    /// A dead server never comes back under its ID, so its routes may go. If that fails, the next reader does it.
    async fn prune(&self, route: &str, dead: Vec<ServerId>) {
        if dead.is_empty() {
            return;
        }
        debug!(
            route,
            ?dead,
            "servers without a lease are removed from a route"
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

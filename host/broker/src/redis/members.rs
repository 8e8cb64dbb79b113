//! Reads who is in a room, on all servers that are alive.
//!
//! Each server writes the fields of its own users ([`super::routes`]). They count only as long as its lease is valid; a reader
//! that finds fields of a dead server removes them. The users of this node come from the node itself.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use dashmap::DashMap;
use redis::Value;
use signalbox_redis_client::{Commands, Unavailable};
use tokio::{sync::Mutex, time::Instant};
use tracing::debug;

use super::{
    holders::Holders,
    keys::{KeyNames, ServerId},
    member_fields,
    member_leases::MemberLeases,
    nodes,
    routes::RouteWriter,
};
use crate::{LocalNode, MemberReport, MembersElsewhere, members::sum};

/// The most fields that are removed by one command.
const REMOVED_MAX: usize = 256;

/// The most users that are looked up in one pipeline.
const LOOKED_UP_MAX: usize = 256;

/// The users in a room, or the reason why they could not be read.
type SharedMembers = Result<Arc<[MemberReport]>, Unavailable>;

/// A read of a room for all callers that came before it began.
#[derive(Default)]
struct RoomRead(Mutex<Option<(Instant, SharedMembers)>>);

/// Reads the members of rooms.
pub(super) struct RedisMembers {
    commands: Commands,
    keys: Arc<KeyNames>,
    holders: Arc<Holders>,
    node: Arc<dyn LocalNode>,
    routes: Arc<RouteWriter>,
    leases: MemberLeases,
    /// The rooms that are being read.
    reads: DashMap<Box<str>, Arc<RoomRead>>,
}

impl RedisMembers {
    pub(super) fn new(
        commands: Commands,
        keys: Arc<KeyNames>,
        holders: Arc<Holders>,
        node: Arc<dyn LocalNode>,
        routes: Arc<RouteWriter>,
    ) -> Self {
        let leases = MemberLeases::new(commands.clone(), keys.clone(), holders.clone());
        Self {
            commands,
            keys,
            holders,
            node,
            routes,
            leases,
            reads: DashMap::new(),
        }
    }

    /// The users in `room` on all servers. Concurrent callers share a read.
    pub(super) async fn of(&self, room: &str) -> SharedMembers {
        let came = Instant::now();
        let read = self.reads.entry(room.into()).or_default().clone();
        let members = {
            let mut last = read.0.lock().await;
            match &*last {
                Some((began, members)) if *began >= came => members.clone(),
                _ => {
                    let began = Instant::now();
                    let members = self.read(room).await;
                    *last = Some((began, members.clone()));
                    members
                }
            }
        };
        drop(read);
        let is_unused = |read: &Arc<RoomRead>| Arc::strong_count(read) == 1;
        self.reads.remove_if(room, |_, read| is_unused(read));
        members
    }

    /// Counts the users in `room` on other servers, exactly if they may be `enough` or more.
    pub(super) async fn elsewhere(
        &self,
        room: &str,
        user: &str,
        enough: usize,
    ) -> Result<MembersElsewhere, Unavailable> {
        let mut count = redis::cmd("HLEN");
        count.arg(self.keys.members(room));
        let before = self.routes.written_members(room);
        let fields: usize = self.commands.run(&count).await?;
        let own = self.routes.written_members(room).min(before);
        // Own fields that are on their way, those of dead servers, and users who are on several ones only make it more.
        let users = fields.saturating_sub(own);
        if users < enough {
            return Ok(MembersElsewhere {
                users,
                has_user: false,
                is_exact: false,
            });
        }
        let members = self.of(room).await?;
        let users = members.iter().map(|member| &*member.user);
        let is_here = |user: &str| self.node.member(room, user).is_some();
        Ok(MembersElsewhere::count(users, user, is_here))
    }

    /// Whether each of `members`, a room and a user, has a field of another server that is alive, in the same order.
    pub(super) async fn present_elsewhere(
        &self,
        members: &[(&str, &str)],
    ) -> Result<Vec<bool>, Unavailable> {
        let mut servers = nodes::living(&self.commands, &self.keys).await?;
        servers.retain(|server| **server != **self.keys.own_id());
        if servers.is_empty() {
            return Ok(vec![false; members.len()]);
        }
        let mut present = Vec::with_capacity(members.len());
        for batch in members.chunks(LOOKED_UP_MAX) {
            let reads = batch.iter().map(|(room, user)| {
                let mut fields = redis::cmd("HMGET");
                fields.arg(self.keys.members(room));
                for server in &servers {
                    fields.arg(member_fields::name(server, user));
                }
                fields
            });
            let answers = self.commands.run_all(reads.collect()).await?;
            let has_any = |answer: Value| matches!(answer, Value::Array(fields) if fields.iter().any(|field| *field != Value::Nil));
            present.extend(answers.into_iter().map(has_any));
        }
        Ok(present)
    }

    /// Returns when a server with members that were read has died.
    pub(super) async fn node_lost(&self) {
        self.leases.lost().await;
    }

    async fn read(&self, room: &str) -> SharedMembers {
        let mut all = redis::cmd("HGETALL");
        all.arg(self.keys.members(room));
        let fields: HashMap<Vec<u8>, Vec<u8>> = self.commands.run(&all).await?;
        let servers: HashSet<&str> = fields
            .keys()
            .filter_map(|name| member_fields::server_in(name))
            .collect();
        let servers: Vec<ServerId> = servers.into_iter().map(Arc::from).collect();
        let (living, dead) = self.holders.by_life(servers).await?;
        self.prune(room, fields.keys(), &dead).await;
        let own = self.keys.own_id();
        let others: Vec<ServerId> = living.into_iter().filter(|server| server != own).collect();
        self.leases.note(&others);
        let others: HashSet<&str> = others.iter().map(|server| &**server).collect();
        let of_others = fields.iter().filter(|(name, _)| {
            member_fields::server_in(name).is_some_and(|server| others.contains(server))
        });
        let reports = of_others.filter_map(|(name, value)| {
            let member = member_fields::read(name, value);
            if member.is_none() {
                debug!(room, "a malformed field of a room's members is ignored");
            }
            member
        });
        Ok(sum(reports.chain(self.node.members(room))))
    }

    /// Removes the fields of `dead` servers, which never come back under these IDs. If that fails, the next reader does it.
    async fn prune<'f>(
        &self,
        room: &str,
        names: impl Iterator<Item = &'f Vec<u8>>,
        dead: &[ServerId],
    ) {
        if dead.is_empty() {
            return;
        }
        debug!(
            room,
            ?dead,
            "members of servers without a lease are removed"
        );
        let of_dead = |name: &&Vec<u8>| {
            let server = member_fields::server_in(name);
            server.is_some_and(|server| dead.iter().any(|dead| **dead == *server))
        };
        let names: Vec<&Vec<u8>> = names.filter(of_dead).collect();
        let commands = names.chunks(REMOVED_MAX).map(|names| {
            let mut remove = redis::cmd("HDEL");
            remove.arg(self.keys.members(room));
            for name in names {
                remove.arg(name.as_slice());
            }
            remove
        });
        let _ = self.commands.run_all(commands.collect()).await;
    }
}

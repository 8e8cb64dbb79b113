//! The soak test of rooms with a history: every member has exactly the messages of its room, or knows that it missed some.
//!
//! [`member`]s send to their room and reconnect at random, each with its place in the history. The [`truth`] knows the
//! message of each number, so it notices a member that got another one. Meanwhile nodes are drained and killed, Redis is
//! restarted with and without its data, and the plugin is swapped.

mod member;
mod truth;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::member::Member;
use self::truth::Truth;
use super::processes::{Node, Redis, stop_all, until_all_ready};
use super::storm::PluginFile;

/// The number of members of a room.
const MEMBERS: u64 = 10;

/// Pause between two failures, and between two swaps.
const PAUSE: Duration = Duration::from_secs(5);

/// How long members have to catch up at the end.
const LAST_WAIT: Duration = Duration::from_secs(40);

/// Pause between two connecting clients.
const CONNECT_PACE: Duration = Duration::from_millis(5);

/// Shared by all members.
#[derive(Debug)]
struct RoomWorld {
    nodes: Vec<SocketAddr>,
    truth: Truth,
    /// Whether members only listen.
    is_silent: AtomicBool,
}

/// Runs the test for `time`, prints the report, and returns whether it passed.
pub(super) async fn run(
    clients: u64,
    time: Duration,
    nodes: &mut [Node],
    redis: &mut Redis,
    plugin: PluginFile,
) -> anyhow::Result<bool> {
    let began = Instant::now();
    let world = Arc::new(RoomWorld {
        nodes: nodes.iter().map(|node| node.address).collect(),
        truth: Truth::default(),
        is_silent: false.into(),
    });
    let mut members = JoinSet::new();
    for number in 0..clients {
        members.spawn(Member::new(world.clone(), number, number / MEMBERS).live());
        sleep(CONNECT_PACE).await;
    }
    let mut failures = Failures::default();
    while began.elapsed() + LAST_WAIT < time {
        sleep(PAUSE).await;
        failures.swaps += 1;
        plugin.replace(failures.swaps)?;
        failures.next(nodes, redis, began).await?;
    }
    world.is_silent.store(true, Ordering::Relaxed);
    eprintln!("{:>4} s: members only listen", began.elapsed().as_secs());
    sleep(LAST_WAIT).await;
    let is_well = world.truth.report(clients, &failures.summary());
    drop(members);
    stop_all(nodes).await?;
    Ok(is_well)
}

/// The failures so far.
#[derive(Debug, Default)]
struct Failures {
    round: usize,
    swaps: u32,
    drains: u32,
    kills: u32,
    redis_restarts: u32,
    redis_losses: u32,
}

impl Failures {
    /// Makes the next failure, and waits until the nodes are ready again.
    async fn next(
        &mut self,
        nodes: &mut [Node],
        redis: &mut Redis,
        began: Instant,
    ) -> anyhow::Result<()> {
        let say = |what: &str| eprintln!("{:>4} s: {what}", began.elapsed().as_secs());
        let victim = self.round / 4 % nodes.len();
        match self.round % 4 {
            0 => {
                say("a node is drained");
                self.drains += 1;
                nodes[victim].stop().await?;
                nodes[victim].start().await?;
            }
            1 => {
                say("Redis is restarted with its data");
                self.redis_restarts += 1;
                redis.interrupt(true).await?;
            }
            2 => {
                say("a node is killed");
                self.kills += 1;
                nodes[victim].kill();
                nodes[victim].start().await?;
            }
            _ => {
                say("Redis is killed and loses its data");
                self.redis_losses += 1;
                redis.interrupt(false).await?;
            }
        }
        self.round += 1;
        until_all_ready(nodes).await
    }

    fn summary(&self) -> String {
        format!(
            "{} swaps, {} drains, {} kills of nodes, {} restarts of Redis with and {} without its data",
            self.swaps, self.drains, self.kills, self.redis_restarts, self.redis_losses
        )
    }
}

//! The cost of members that stay: the commands of Redis while nobody comes or leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::room;
use super::visitor::{Place, PresenceWorld, Stays, Visitor};
use crate::soak::processes::Redis;

/// The members of one room.
const MEMBERS: usize = 100;

/// The number of clients that connect at a time.
const CONNECTING: usize = 100;

/// How long the nodes have until everything is written and read: longer than a lease.
const SETTLE_TIME: Duration = Duration::from_secs(20);

/// The time that is measured.
const MEASURED_TIME: Duration = Duration::from_secs(30);

/// The commands that are about members.
const MEMBER_COMMANDS: [&str; 4] = ["hset", "hdel", "hlen", "hgetall"];

/// Lets `members` stay in rooms, prints the commands that Redis carries out meanwhile, and returns whether none is about members.
pub(super) async fn run(
    members: usize,
    world: &Arc<PresenceWorld>,
    redis: &Redis,
) -> anyhow::Result<bool> {
    let mut tasks = JoinSet::new();
    let visitor = |index: usize| {
        let (user, room) = (format!("idle{index}"), room::name(1000 + index / MEMBERS));
        let visitor = Visitor::new(world.clone(), user, room, Stays::default());
        tasks.spawn(visitor.clone().live());
        visitor
    };
    let visitors: Vec<Arc<Visitor>> = (0..members).map(visitor).collect();
    for group in visitors.chunks(CONNECTING) {
        for visitor in group {
            visitor.wanted.send_replace(Place::Inside);
        }
        for visitor in group {
            visitor.settled().await;
        }
    }
    sleep(SETTLE_TIME).await;
    let before = redis.calls().await?;
    sleep(MEASURED_TIME).await;
    let after = redis.calls().await?;
    println!(
        "{members} members stay; in {} s Redis carried out:",
        MEASURED_TIME.as_secs()
    );
    let mut is_well = true;
    for (command, calls) in after {
        let calls = calls - before.get(&command).copied().unwrap_or_default();
        if calls > 0 {
            println!("  {calls:>6} {command}");
            is_well &= !MEMBER_COMMANDS.contains(&command.as_str());
        }
    }
    Ok(is_well)
}

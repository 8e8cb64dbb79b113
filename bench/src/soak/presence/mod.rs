//! The soak test of presence: after every event each client in a room comes to know who is there.
//!
//! Clients come, go and reconnect in many [`room`]s at a time; nodes are drained and killed, and Redis is restarted with and
//! without its data. Each client keeps the users of its room from the list and the changes that it gets. The test knows the truth,
//! and measures how long it takes until all clients know it too. Before that, [`idle`] measures the cost of members that stay.

mod failures;
mod figures;
mod idle;
mod room;
mod view;
mod visitor;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use self::failures::Failures;
use self::figures::{EventKind, Figures};
use self::room::Room;
use self::visitor::PresenceWorld;
use super::faults::Faults;
use super::processes::{Node, Redis, stop_all};

/// The number of rooms.
const ROOMS: usize = 20;

/// The number of rounds with one event in each room between two failures.
const ROUNDS: u64 = 2;

/// `presence.grace`, shorter than by default: every leave waits for it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Runs `events`, prints the report, and returns whether the test passed. If `idle` is not 0, it first measures the cost of that
/// many members that stay.
pub(super) async fn run(
    events: u64,
    idle: usize,
    nodes: &mut [Node],
    redis: &mut Redis,
) -> anyhow::Result<bool> {
    let began = Instant::now();
    let say = |what: &str| eprintln!("{:>4} s: {what}", began.elapsed().as_secs());
    let world = Arc::new(PresenceWorld {
        nodes: nodes.iter().map(|node| node.address).collect(),
        contradictions: Faults::default(),
        false_leaves: 0.into(),
        grace: GRACE,
    });
    let mut is_well = true;
    if idle > 0 {
        say("members stay");
        is_well = idle::run(idle, &world, redis).await?;
    }
    let mut rooms: Vec<Room> = (0..ROOMS).map(|number| Room::new(&world, number)).collect();
    join_all(rooms.iter_mut().map(Room::fill)).await;
    let mut soak = Soak {
        world,
        figures: Figures::default(),
    };
    let mut failures = Failures::default();
    let (mut done, mut round) = (0, 0);
    while done < events {
        round += 1;
        if round % (ROUNDS + 1) == 0 {
            let kind = failures.next(nodes, redis, &mut rooms).await?;
            say(&format!("{kind:?}"));
            soak.all_know(&rooms, kind).await;
            Failures::recover(nodes).await?;
            join_all(
                rooms
                    .iter()
                    .map(|room| room.until_known(kind.time_max(GRACE))),
            )
            .await;
            done += 1;
        } else {
            done += soak.round(&mut rooms).await;
        }
    }
    say("nothing happens any more");
    sleep(GRACE * 2).await;
    is_well &= soak.report(&rooms);
    drop(rooms);
    stop_all(nodes).await?;
    Ok(is_well)
}

struct Soak {
    world: Arc<PresenceWorld>,
    figures: Figures,
}

impl Soak {
    /// One event in each room. Returns their number.
    async fn round(&mut self, rooms: &mut [Room]) -> u64 {
        let outcomes = rooms.iter_mut().map(async |room| {
            let kind = room.event().await;
            let time = room.until_known(kind.time_max(GRACE)).await;
            (kind, time)
        });
        let outcomes = join_all(outcomes).await;
        // Which of the events it was is not known.
        let mut false_leaves = self.take_false_leaves();
        for (kind, time) in &outcomes {
            self.figures.event(*kind, std::mem::take(&mut false_leaves));
            self.figures.known(*kind, *time, GRACE);
        }
        outcomes.len() as u64
    }

    /// Waits until all clients in all rooms know the truth after a failure.
    async fn all_know(&mut self, rooms: &[Room], kind: EventKind) {
        let known = rooms
            .iter()
            .map(|room| room.until_known(kind.time_max(GRACE)));
        let times = join_all(known).await;
        self.figures.event(kind, self.take_false_leaves());
        for time in times {
            self.figures.known(kind, time, GRACE);
        }
    }

    fn take_false_leaves(&self) -> u64 {
        self.world.false_leaves.swap(0, Ordering::Relaxed)
    }

    /// Prints the report, and returns whether all is well.
    fn report(&self, rooms: &[Room]) -> bool {
        println!("\n{}", self.figures);
        let contradictions = self.world.contradictions.count();
        println!("{contradictions} contradictions");
        for what in self.world.contradictions.first() {
            println!("  {what}");
        }
        let differences: Vec<String> = rooms.iter().filter_map(Room::difference).collect();
        for difference in &differences {
            println!("  at the end {difference}");
        }
        let is_well = self.figures.are_well() && contradictions == 0 && differences.is_empty();
        println!("the soak {}", if is_well { "passed" } else { "failed" });
        is_well
    }
}

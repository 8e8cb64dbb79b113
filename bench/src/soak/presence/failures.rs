//! The failures of nodes and of Redis.

use tokio::time::sleep;

use super::figures::EventKind;
use super::room::Room;
use crate::soak::processes::{Node, REDIS_AWAY, Redis};

/// Makes the failures in turn.
#[derive(Debug, Default)]
pub(super) struct Failures {
    round: usize,
}

impl Failures {
    /// Makes the next failure, and returns when every client is at its place. Meanwhile half of the clients of a node that fails give up, and in
    /// each room something happens while Redis is down.
    pub(super) async fn next(
        &mut self,
        nodes: &mut [Node],
        redis: &mut Redis,
        rooms: &mut [Room],
    ) -> anyhow::Result<EventKind> {
        const TURNS: [EventKind; 4] = [
            EventKind::Drain,
            EventKind::RedisRestart,
            EventKind::Kill,
            EventKind::RedisLoss,
        ];
        let (victim, kind) = (self.round / 4 % nodes.len(), TURNS[self.round % 4]);
        self.round += 1;
        match kind {
            EventKind::Drain => {
                nodes[victim].ask_to_stop()?;
                rooms.iter_mut().for_each(|room| room.give_up(victim));
            }
            EventKind::Kill => {
                nodes[victim].kill();
                rooms.iter_mut().for_each(|room| room.give_up(victim));
            }
            _ => {
                redis.stop(kind == EventKind::RedisRestart).await?;
                let events = rooms.iter_mut().map(Room::event);
                futures_util::future::join_all(events).await;
                sleep(REDIS_AWAY).await;
                redis.restart()?;
            }
        }
        for room in rooms {
            room.settle().await;
        }
        Ok(kind)
    }

    /// Starts the nodes that a failure ended, and waits until all are ready.
    pub(super) async fn recover(nodes: &mut [Node]) -> anyhow::Result<()> {
        for node in nodes {
            node.stopped().await?;
            if node.is_down() {
                node.start().await?;
            }
            node.until_ready().await?;
        }
        Ok(())
    }
}

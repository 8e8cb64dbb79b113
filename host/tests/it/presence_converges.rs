//! Whatever happens, the members of a room come to know who is there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    presence_nodes::{Watcher, join, start},
    redis::Server,
    redis_nodes::{Nodes, Peer},
};

/// The users who come and go.
const USERS: usize = 8;

/// Events between two comparisons.
const EVENTS: usize = 15;

/// A user, and whether the user is in the room.
type Visitor = Option<(Peer, bool)>;

/// Numbers that look random, and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end
    }
}

async fn event(cluster: &Nodes, visitors: &mut [Visitor], numbers: &mut Numbers) {
    let index = numbers.below(USERS);
    let choice = numbers.below(3);
    visitors[index] = match (visitors[index].take(), choice) {
        (None, _) => {
            let node = &cluster.nodes[numbers.below(cluster.nodes.len())];
            let mut peer = Peer::connect(node, &format!("user{index}")).await;
            join(&mut peer, Value::Null).await;
            Some((peer, true))
        }
        (Some((mut peer, false)), 0) => {
            join(&mut peer, Value::Null).await;
            Some((peer, true))
        }
        (Some((mut peer, true)), 0) => {
            let leave = json!({"type": "leave", "room": "seen:1"});
            peer.answer_to(leave).await;
            Some((peer, false))
        }
        (Some((peer, _)), 1) => {
            peer.close().await;
            None
        }
        // The connection breaks.
        (Some(_), _) => None,
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_random_events_all_members_know_the_truth() {
    let mut server = Server::start().await;
    let cluster = start(3, &server, "", "grace = \"20ms\"").await;
    let mut watchers = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let peer = Peer::connect(node, &format!("watcher{index}")).await;
        watchers.push(Watcher::new(peer).await);
    }
    let mut visitors: Vec<Visitor> = (0..USERS).map(|_| None).collect();
    let mut numbers = Numbers(1);
    for phase in 0..6 {
        for _ in 0..EVENTS {
            event(&cluster, &mut visitors, &mut numbers).await;
        }
        match phase {
            // Notices between nodes are lost.
            1 | 4 => {
                let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
                server.command::<u64>(&kill).await;
            }
            2 => {
                server.kill9();
                drop(cluster.until_unready().await);
                server.restart_empty().await;
                cluster.until_ready().await;
            }
            _ => {}
        }
        let inside = |(index, visitor): (usize, &Visitor)| {
            let is_inside = visitor.as_ref().is_some_and(|(_, is_inside)| *is_inside);
            is_inside.then(|| format!("user{index}"))
        };
        let users = visitors.iter().enumerate().filter_map(inside);
        let others = (0..3).map(|index| format!("watcher{index}"));
        let truth: BTreeSet<String> = users.chain(others).collect();
        for watcher in &mut watchers {
            watcher.until_knows(&truth).await;
        }
    }
}

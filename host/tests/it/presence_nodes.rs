//! Who is in a room, on several nodes.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    process,
    redis::{Server, until},
    redis_nodes::{Nodes, Peer, config, until_ready},
};

const ROOM: &str = "seen:1";

fn rules(presence: &str) -> String {
    format!(
        "[[rooms]]\nmatch = \"seen:*\"\npresence = true\n[presence]\nflush = \"10ms\"\n{presence}\n"
    )
}

pub(crate) async fn start(size: usize, server: &Server, redis: &str, presence: &str) -> Nodes {
    let rules = rules(presence);
    Nodes::start(size, &server.url(), &format!("{redis}\n{rules}")).await
}

pub(crate) async fn join(peer: &mut Peer, payload: Value) -> Value {
    let join = json!({"type": "join", "room": ROOM, "payload": payload});
    peer.answer_to(join).await
}

/// Joins the room with presence, and returns the first report.
async fn watch(peer: &mut Peer) -> Value {
    join(peer, json!({"presence": true})).await;
    report(peer).await
}

/// The next report.
async fn report(peer: &mut Peer) -> Value {
    loop {
        let mut frame = peer.delivery().await;
        match frame["type"].as_str() {
            Some("presence") => return frame["payload"].take(),
            Some("joined" | "left") => {}
            _ => panic!("{frame}"),
        }
    }
}

/// The users that a report lists under `name`.
fn users(report: &Value, name: &str) -> Vec<String> {
    let list = report[name].as_array().cloned().unwrap_or_default();
    let user = |entry: &Value| {
        let user = entry.get("userId").unwrap_or(entry);
        user.as_str().expect("a user").to_owned()
    };
    list.iter().map(user).collect()
}

/// The users that came and those that left, in the next report.
async fn change(peer: &mut Peer) -> (Vec<String>, Vec<String>) {
    let report = report(peer).await;
    assert!(report.get("members").is_none(), "{report}");
    (users(&report, "joined"), users(&report, "left"))
}

fn came(user: &str) -> (Vec<String>, Vec<String>) {
    (vec![user.to_owned()], Vec::new())
}

fn left(user: &str) -> (Vec<String>, Vec<String>) {
    (Vec::new(), vec![user.to_owned()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_see_the_users_of_all_nodes() {
    let server = Server::start().await;
    let cluster = start(2, &server, "", "grace = \"0s\"").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    assert_eq!(users(&watch(&mut ann).await, "members"), ["ann"]);
    assert_eq!(users(&watch(&mut bob).await, "members"), ["ann", "bob"]);
    assert_eq!(change(&mut ann).await, came("bob"));
    // The same user on both nodes is one.
    let mut ann_too = Peer::connect(&cluster.nodes[1], "ann").await;
    let snapshot = watch(&mut ann_too).await;
    assert_eq!(
        (&snapshot["total"], &snapshot["members"][0]["connections"]),
        (&json!(2), &json!(2))
    );
    ann_too.close().await;
    let mut eve = Peer::connect(&cluster.nodes[0], "eve").await;
    join(&mut eve, Value::Null).await;
    for peer in [&mut ann, &mut bob] {
        assert_eq!(change(peer).await, came("eve"));
    }
    eve.close().await;
    for peer in [&mut ann, &mut bob] {
        assert_eq!(change(peer).await, left("eve"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_another_node_within_the_grace_is_silent() {
    let server = Server::start().await;
    let cluster = start(3, &server, "", "grace = \"1h\"").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    watch(&mut ann).await;
    let mut bob = Peer::connect(&cluster.nodes[0], "bob").await;
    join(&mut bob, Value::Null).await;
    assert_eq!(change(&mut ann).await, came("bob"));
    for (round, node) in cluster.nodes.iter().cycle().take(6).enumerate() {
        bob.close().await;
        bob = Peer::connect(node, "bob").await;
        join(&mut bob, Value::Null).await;
        // Whatever was reported about bob would come first.
        let user = format!("user{round}");
        let mut other = Peer::connect(node, &user).await;
        join(&mut other, Value::Null).await;
        assert_eq!(change(&mut ann).await, came(&user));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_members_of_a_killed_node_are_gone_when_its_lease_is() {
    let server = Server::start().await;
    let cluster = start(1, &server, "", "grace = \"100ms\"").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    watch(&mut ann).await;
    let config = config("doomed", &server.url(), &rules(""));
    let mut doomed = process::Server::start(&config).await;
    until_ready(&doomed).await;
    let mut bob = Peer::connect(&doomed, "bob").await;
    join(&mut bob, Value::Null).await;
    assert_eq!(change(&mut ann).await, came("bob"));
    doomed.signal(process::Signal::KILL);
    doomed.ended().await;
    assert_eq!(change(&mut ann).await, left("bob"));
    let leases: Vec<String> = server.command(&["KEYS", "server_alive:doomed-*"]).await;
    assert!(leases.is_empty(), "the lease ended first: {leases:?}");
    until("its fields are removed", async || {
        let fields: Vec<String> = server.command(&["HKEYS", "room_members:seen:1"]).await;
        (fields.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_causes_no_leaves() {
    let mut server = Server::start().await;
    let cluster = start(2, &server, "", "grace = \"30s\"").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    watch(&mut ann).await;
    watch(&mut bob).await;
    assert_eq!(change(&mut ann).await, came("bob"));
    server.kill9();
    drop(cluster.until_unready().await);
    server.restart_empty().await;
    cluster.until_ready().await;
    until("the members are back", async || {
        let fields: Vec<String> = server.command(&["HKEYS", "room_members:seen:1"]).await;
        (fields.len() == 2).then_some(())
    })
    .await;
    let mut eve = Peer::connect(&cluster.nodes[1], "eve").await;
    assert_eq!(
        users(&watch(&mut eve).await, "members"),
        ["ann", "bob", "eve"]
    );
    for peer in [&mut ann, &mut bob] {
        assert_eq!(change(peer).await, came("eve"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_a_node_did_not_hear_of_are_found_when_it_listens_again() {
    let server = Server::start().await;
    let cluster = start(2, &server, "", "grace = \"0s\"").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    watch(&mut ann).await;
    for round in 0..5 {
        let user = format!("user{round}");
        let mut other = Peer::connect(&cluster.nodes[1], &user).await;
        server
            .command::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .await;
        join(&mut other, Value::Null).await;
        assert_eq!(change(&mut ann).await, came(&user));
        other.close().await;
        assert_eq!(change(&mut ann).await, left(&user));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_full_on_all_nodes() {
    let server = Server::start().await;
    let rule = "[[rooms]]\nmatch = \"seen:*\"\npresence = true\nmembers_max = 2\n";
    let cluster = Nodes::start(2, &server.url(), rule).await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    assert_eq!(join(&mut ann, Value::Null).await["type"], "ack");
    assert_eq!(join(&mut bob, Value::Null).await["type"], "ack");
    for node in &cluster.nodes {
        let mut eve = Peer::connect(node, "eve").await;
        let refused = join(&mut eve, Value::Null).await;
        assert_eq!(refused["payload"]["code"], "room_full", "{refused}");
        assert_eq!(refused["payload"]["retryable"], true);
        let mut ann_too = Peer::connect(node, "ann").await;
        assert_eq!(join(&mut ann_too, Value::Null).await["type"], "ack");
        ann_too.close().await;
    }
    bob.close().await;
    let mut eve = Peer::connect(&cluster.nodes[0], "eve").await;
    until("there is a place", async || {
        (join(&mut eve, Value::Null).await["type"] == "ack").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_joins_at_once_do_not_overfill_a_room_with_users_elsewhere() {
    let server = Server::start().await;
    let rule = "[[rooms]]\nmatch = \"seen:*\"\npresence = true\nmembers_max = 30\n";
    let cluster = Nodes::start(2, &server.url(), rule).await;
    let connect = async |node: usize, count: usize| {
        let peers = (0..count).map(async |index| {
            let user = format!("user{node}-{index}");
            Peer::connect(&cluster.nodes[node], &user).await
        });
        join_all(peers).await
    };
    let mut elsewhere = connect(1, 10).await;
    for peer in &mut elsewhere {
        assert_eq!(join(peer, Value::Null).await["type"], "ack");
    }
    let mut peers = connect(0, 50).await;
    let joins = peers
        .iter_mut()
        .map(async |peer| join(peer, Value::Null).await);
    let answers = join_all(joins).await;
    let inside = answers.iter().filter(|answer| answer["type"] == "ack");
    assert_eq!(inside.count(), 20);
}

/// A member, and the users that it knows of.
pub(crate) struct Watcher {
    peer: Peer,
    users: BTreeSet<String>,
}

impl Watcher {
    pub(crate) async fn new(mut peer: Peer) -> Self {
        let snapshot = watch(&mut peer).await;
        Self {
            peer,
            users: users(&snapshot, "members").into_iter().collect(),
        }
    }

    /// Takes reports until it knows exactly of `truth`.
    pub(crate) async fn until_knows(&mut self, truth: &BTreeSet<String>) {
        while self.users != *truth {
            let (joined, left) = change(&mut self.peer).await;
            for user in left {
                assert!(self.users.remove(&user), "{user} was not there");
            }
            for user in joined {
                assert!(self.users.insert(user.clone()), "{user} was there");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_users_came_and_went_as_fast_as_they_can_all_members_know_the_truth() {
    const ROUNDS: usize = 20;
    let server = Server::start().await;
    let cluster = start(2, &server, "", "grace = \"20ms\"").await;
    let mut watchers = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let peer = Peer::connect(node, &format!("watcher{index}")).await;
        watchers.push(Watcher::new(peer).await);
    }
    // Several tasks for each of a few users, so that a user's first and last connection race constantly.
    let flickers = (0..12).map(async |task: usize| {
        let user = format!("u{}", task % 4);
        for round in 0..ROUNDS {
            let node = &cluster.nodes[(task + round) % 2];
            let mut peer = Peer::connect(node, &user).await;
            join(&mut peer, Value::Null).await;
            if task == 0 && round % 5 == 0 {
                server
                    .command::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"])
                    .await;
            }
            if round == ROUNDS - 1 && task < 2 {
                return Some(peer);
            }
            if round % 3 == 0 {
                peer.close().await;
            }
        }
        None
    });
    let stay: Vec<Peer> = join_all(flickers).await.into_iter().flatten().collect();
    let names = stay.iter().map(|peer| peer.user.clone());
    let others = ["watcher0", "watcher1"].map(str::to_owned);
    let truth: BTreeSet<String> = names.chain(others).collect();
    for watcher in &mut watchers {
        watcher.until_knows(&truth).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_stay_cost_redis_only_leases() {
    const MEMBERS: usize = 100;
    let server = Server::start().await;
    let cluster = start(2, &server, "", "").await;
    let names: Vec<String> = (0..MEMBERS)
        .map(|index| format!("user{index:03}"))
        .collect();
    let mut peers = cluster.peers(&names).await;
    for peer in &mut peers {
        join(peer, json!({"presence": true})).await;
    }
    for peer in &mut peers {
        while report(peer).await["total"] != MEMBERS {}
    }
    // Everything is written once more soon after a link was made, and before the second lease.
    until_renewed(&server).await;
    until_renewed(&server).await;
    let stats = server.commandstats().await;
    for command in ["hset", "hdel", "hlen", "hgetall"] {
        assert_eq!(stats.get(command), None, "{command}");
    }
    // Each node asks at most once in ten seconds whether the other one is alive.
    let reads = stats.get("pttl").copied().unwrap_or_default();
    assert!(reads <= 4, "{stats:?}");
}

/// Waits until both nodes have renewed their leases twice since now.
async fn until_renewed(server: &Server) {
    server.reset_commandstats().await;
    until("each lease was renewed twice", async || {
        let stats = server.commandstats().await;
        (stats.get("set").is_some_and(|sets| *sets >= 4)).then_some(())
    })
    .await;
}

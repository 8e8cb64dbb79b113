//! Histories of rooms on several nodes: one order for all, recovery on any node, and losses that are repaired or told.

use std::collections::BTreeMap;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};

use crate::{
    harness::Node,
    redis::{Server, until},
    redis_nodes::{Nodes, Outcome, Peer, until_ready},
};

const RULE: &str = "[[rooms]]\nmatch = \"chat:*\"\nhistory = { size = 1000, time = \"5m\" }\n";

const ROOM: &str = "chat:1";

async fn start(size: usize, server: &Server, redis: &str) -> Nodes {
    Nodes::start(size, &server.url(), &format!("{redis}\n{RULE}")).await
}

/// A client in the room, and the messages that it got, by number.
struct Member {
    peer: Peer,
    /// The place before the next message.
    place: Value,
    /// The payloads of the messages of the current epoch.
    got: BTreeMap<u64, u64>,
}

impl Member {
    /// Joins with `payload`, and returns the answer too.
    async fn join(mut peer: Peer, payload: Value) -> (Self, Value) {
        let join = json!({"type": "join", "room": ROOM, "payload": payload});
        let place = peer.answer_to(join).await["payload"]["room"].clone();
        let start = place.clone();
        let mut member = Self {
            peer,
            place,
            got: BTreeMap::new(),
        };
        let count = start["count"].as_u64().unwrap_or(0);
        // The next message is the first missed one, if there is any.
        member.place["offset"] = json!(start["offset"].as_u64().unwrap() - count);
        (member, start)
    }

    /// Takes frames until the message number `offset` of the current epoch has come. Each one must be the next.
    async fn until_offset(&mut self, offset: u64) {
        while self.offset() < offset {
            let frame = self.peer.delivery().await;
            self.take(&frame);
        }
    }

    /// Takes frames until the server says that messages were missed, and returns the reason.
    async fn until_missed(&mut self) -> String {
        loop {
            let frame = self.peer.delivery().await;
            self.take(&frame);
            if frame["payload"]["recovered"] == false {
                return frame["payload"]["reason"].as_str().unwrap().to_owned();
            }
        }
    }

    fn take(&mut self, frame: &Value) {
        if frame["type"] == "joined" {
            let is_other = frame["payload"]["epoch"] != self.place["epoch"];
            if is_other {
                self.got.clear();
            }
            if frame["payload"]["recovered"] == false {
                self.place = frame["payload"].clone();
            }
            return;
        }
        let offset = frame["offset"]
            .as_u64()
            .unwrap_or_else(|| panic!("{frame}"));
        assert_eq!(offset, self.offset() + 1, "{}: {frame}", self.peer.user);
        self.place["offset"] = json!(offset);
        self.got.insert(offset, frame["payload"].as_u64().unwrap());
    }

    fn offset(&self) -> u64 {
        self.place["offset"].as_u64().unwrap()
    }

    /// Sends `n` to the room until it is accepted.
    async fn say(&mut self, n: u64) {
        until("the message is accepted", async || {
            let message = json!({"type": "test", "payload": n, "room": ROOM});
            (self.peer.ask_json(message).await == Outcome::Delivered).then_some(())
        })
        .await;
    }

    fn since(&self) -> Value {
        json!({"since": {"epoch": self.place["epoch"], "offset": self.offset()}})
    }
}

/// Clients in the room, with the nodes in turn.
async fn members(cluster: &Nodes, count: usize) -> Vec<Member> {
    let users: Vec<String> = (0..count).map(|index| format!("user{index}")).collect();
    let peers = cluster.peers(&users).await;
    let joins = peers
        .into_iter()
        .map(|peer| Member::join(peer, Value::Null));
    let joined = join_all(joins).await;
    joined.into_iter().map(|(member, _)| member).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_on_all_nodes_get_the_messages_of_all_senders_in_one_order() {
    const EACH: u64 = 100;
    let server = Server::start().await;
    let cluster = start(3, &server, "").await;
    let mut members = members(&cluster, 6).await;
    for n in 0..EACH {
        for (index, member) in members.iter_mut().enumerate() {
            let payload = index as u64 * EACH + n;
            let message = json!({"type": "test", "payload": payload, "room": ROOM});
            member.peer.send_json(&message).await;
        }
    }
    for member in &mut members {
        member.until_offset(6 * EACH).await;
    }
    let expected = &members[0].got;
    let mut payloads: Vec<u64> = expected.values().copied().collect();
    for member in &members {
        assert_eq!(&member.got, expected, "{}", member.peer.user);
    }
    // A sender's messages keep their order.
    for index in 0..6 {
        let mut own = payloads.iter().filter(|payload| **payload / EACH == index);
        assert!((index * EACH..(index + 1) * EACH).all(|n| own.next() == Some(&n)));
    }
    payloads.sort_unstable();
    assert!(payloads.into_iter().eq(0..6 * EACH));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_moves_to_another_node_gets_missed_messages() {
    let server = Server::start().await;
    let cluster = start(3, &server, "").await;
    let mut members = members(&cluster, 2).await;
    let (mut ann, mut bob) = (members.remove(0), members.remove(0));
    let mut sent = 0;
    for node in cluster.nodes.iter().cycle().take(6) {
        let since = bob.since();
        bob.peer.close().await;
        for _ in 0..5 {
            sent += 1;
            ann.say(sent).await;
        }
        let answer;
        (bob, answer) = Member::join(Peer::connect(node, "user1").await, since).await;
        assert_eq!(
            (&answer["recovered"], &answer["count"]),
            (&json!(true), &json!(5))
        );
        sent += 1;
        ann.say(sent).await;
        bob.until_offset(sent).await;
        assert!((sent - 5..=sent).all(|n| bob.got[&n] == n), "{:?}", bob.got);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_lost_between_nodes_are_read_from_the_history() {
    let server = Server::start().await;
    let cluster = start(2, &server, "").await;
    let mut members = members(&cluster, 2).await;
    let mut sent = 0;
    for _ in 0..5 {
        server
            .command::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .await;
        for _ in 0..10 {
            sent += 1;
            members[0].say(sent).await;
        }
        // Also if no other message follows.
        for member in &mut members {
            member.until_offset(sent).await;
        }
    }
    for member in &members {
        assert!((1..=sent).all(|n| member.got[&n] == n), "{:?}", member.got);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_learn_that_redis_lost_the_history_and_continue() {
    let mut server = Server::start().await;
    let cluster = start(2, &server, "").await;
    let mut members = members(&cluster, 2).await;
    members[0].say(1).await;
    for member in &mut members {
        member.until_offset(1).await;
    }
    let before = members[1].since();
    server.kill9();
    drop(cluster.until_unready().await);
    server.restart_empty().await;
    cluster.until_ready().await;
    for member in &mut members {
        assert_eq!(member.until_missed().await, "epoch");
    }
    assert_eq!(members[0].place["epoch"], members[1].place["epoch"]);
    let start = members[0].offset();
    members[0].say(2).await;
    for member in &mut members {
        member.until_offset(start + 1).await;
        assert_eq!(member.got[&(start + 1)], 2);
    }
    let late = Peer::connect(&cluster.nodes[0], "late").await;
    let (_, answer) = Member::join(late, before).await;
    assert_eq!(
        (&answer["recovered"], &answer["reason"]),
        (&json!(false), &json!("epoch"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_lost_its_last_messages_starts_a_new_epoch() {
    let server = Server::start().await;
    let cluster = start(2, &server, "").await;
    let mut members = members(&cluster, 2).await;
    for n in 1..=10 {
        members[0].say(n).await;
    }
    for member in &mut members {
        member.until_offset(10).await;
    }
    // As after a failover to a replica that lacks the last three messages, and to which others were appended.
    let (head, log) = ("room_history:{chat:1}:head", "room_history:{chat:1}:log");
    let epoch = members[0].place["epoch"].as_str().unwrap().to_owned();
    server.command::<u64>(&["DEL", log]).await;
    for offset in 7..=11 {
        let id = format!("{offset}-0");
        let frame = json!({"type": "test", "payload": 100 + offset, "receiverID": "", "senderId": "",
            "timestamp": "2026-01-01T00:00:00.000000Z", "room": ROOM});
        server
            .command::<String>(&["XADD", log, &id, &epoch, &frame.to_string()])
            .await;
    }
    server.command::<u64>(&["HSET", head, "o", "11"]).await;
    server
        .command::<u64>(&["CLIENT", "KILL", "TYPE", "normal"])
        .await;
    for member in &mut members {
        assert_eq!(member.until_missed().await, "epoch");
        assert_ne!(member.place["epoch"], epoch);
    }
    let start = members[0].offset();
    members[1].say(1).await;
    for member in &mut members {
        member.until_offset(start + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_return_all_at_once_share_reads() {
    const CLIENTS: usize = 500;
    let mut server = Server::start().await;
    let cluster = start(1, &server, "command_timeout = \"60s\"").await;
    let mut speaker = members(&cluster, 1).await.remove(0);
    let since = speaker.since();
    for n in 1..=20 {
        speaker.say(n).await;
    }
    let users: Vec<String> = (0..CLIENTS).map(|index| format!("client{index}")).collect();
    let peers = cluster.peers(&users).await;
    let before = reads(&server).await;
    let joins = peers
        .into_iter()
        .map(|peer| Member::join(peer, since.clone()));
    let joins = join_all(joins);
    // Redis answers once all of them have asked.
    server.stop();
    let node = &cluster.nodes[0];
    let goes_on = async {
        let joins = |count| count >= (CLIENTS + 1) as f64;
        node.until_metric("wss_messages_by_type_total{type=\"join\"} ", joins)
            .await;
        server.cont();
    };
    for (mut member, answer) in join(joins, goes_on).await.0 {
        assert_eq!(
            (&answer["recovered"], &answer["count"]),
            (&json!(true), &json!(20))
        );
        member.until_offset(20).await;
        assert!((1..=20).all(|n| member.got[&n] == n));
    }
    let reads = reads(&server).await - before;
    assert!(reads <= 10, "{reads} reads");
}

/// How often a history was read from Redis.
async fn reads(server: &Server) -> u64 {
    let stats: String = server.command(&["INFO", "commandstats"]).await;
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_xrevrange:calls="));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_redis_forgot_are_sent_again() {
    let server = Server::start().await;
    let cluster = start(2, &server, "").await;
    let mut members = members(&cluster, 2).await;
    for n in 1..=10 {
        server.command::<()>(&["SCRIPT", "FLUSH"]).await;
        members[n as usize % 2].say(n).await;
    }
    for member in &mut members {
        member.until_offset(10).await;
        assert!((1..=10).all(|n| member.got[&n] == n), "{:?}", member.got);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_appended_and_could_not_be_published_reaches_all_members_once() {
    let server = Server::start().await;
    let cluster = start(2, &server, "").await;
    let mut members = members(&cluster, 2).await;
    members[0].say(1).await;
    // Between the append and the publish.
    let acl = async |rule: &str| {
        server
            .command::<()>(&["ACL", "SETUSER", "default", rule])
            .await;
    };
    acl("-publish").await;
    let message = json!({"type": "test", "payload": 2, "room": ROOM});
    members[0].peer.ask_json(message).await;
    acl("+publish").await;
    until("messages are accepted again", async || {
        let ready = cluster.nodes[0].get("/ready").await.0;
        (ready == 200).then_some(())
    })
    .await;
    members[0].say(3).await;
    for member in &mut members {
        member.until_offset(3).await;
        assert!((1..=3).all(|n| member.got[&n] == n), "{:?}", member.got);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_different_rules_for_a_room_lose_no_live_messages() {
    let server = Server::start().await;
    let config = |name: &str, rule: &str| crate::redis_nodes::config(name, &server.url(), rule);
    let short = RULE.replace("1000", "2");
    let [long, short, none] = [
        Node::start(&config("long", RULE)).await,
        Node::start(&config("short", &short)).await,
        Node::start(&config("none", "")).await,
    ];
    let mut peers = Vec::new();
    for (node, user) in [(&long, "ann"), (&short, "bob"), (&none, "eve")] {
        until_ready(node).await;
        let mut peer = Peer::connect(node, user).await;
        peer.join(ROOM).await;
        peers.push(peer);
    }
    // In turn from each node; those of the last one are not kept.
    for n in 0..9_u64 {
        let sender = n as usize % 3;
        let message = json!({"type": "test", "payload": n, "room": ROOM});
        assert_eq!(peers[sender].ask_json(message).await, Outcome::Delivered);
        for peer in &mut peers {
            let mut got = peer.delivery().await;
            while got["type"] == "joined" {
                got = peer.delivery().await;
            }
            assert_eq!(got["payload"], n, "{}: {got}", peer.user);
            assert_eq!(got.get("offset").is_some(), sender != 2, "{got}");
        }
    }
    // The node with the short history has trimmed it for all.
    let late = Peer::connect(&long, "late").await;
    let (_, answer) = Member::join(late, json!({"last": 100})).await;
    assert_eq!(
        (&answer["offset"], &answer["recovered"]),
        (&json!(6), &json!(true))
    );
    assert!(
        answer["count"].as_u64().is_some_and(|count| count <= 2),
        "{answer}"
    );
}

//! Histories of users on several nodes: one order for all devices, recovery on any node, and losses that are repaired or told.

use futures_util::future::join;
use serde_json::{Value, json};

use crate::{
    harness::{Client, Node},
    redis::{Server, until},
    redis_nodes::{Nodes, Outcome, Peer, config},
};

const HISTORY: &str = "[users]\nhistory = { size = 1000, time = \"5m\" }\n";

async fn start(size: usize, server: &Server, redis: &str) -> Nodes {
    Nodes::start(size, &server.url(), &format!("{redis}\n{HISTORY}")).await
}

/// A device of a user, and its place in the user's history.
struct Device {
    client: Client,
    place: Value,
}

impl Device {
    /// Connects, and returns the place in `welcome` too. `since`: the place after which it missed messages.
    async fn connect(node: &Node, user: &str, since: Option<&Value>) -> (Self, Value) {
        let since = since.map(|place| {
            let epoch = place["epoch"].as_str().expect("an epoch");
            format!("&since={epoch}:{}", place["offset"])
        });
        let path = format!("/ws?userId={user}{}", since.unwrap_or_default());
        let protocol = [("Sec-WebSocket-Protocol", "signalbox.v1")];
        let (mut client, _) = node.upgrade(&path, &protocol).await.expect("it is let in");
        let welcome = client.json().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        let answer = welcome["payload"]["user"].clone();
        let mut place = answer.clone();
        let count = answer["count"].as_u64().unwrap_or(0);
        // The next message is the first missed one, if there is any.
        place["offset"] = json!(answer["offset"].as_u64().expect("an offset") - count);
        (Self { client, place }, answer)
    }

    /// The payload of the next message, which must have the next number.
    async fn next(&mut self) -> u64 {
        let message = self.client.json().await;
        let offset = self.place["offset"].as_u64().unwrap() + 1;
        assert_eq!(message["offset"], offset, "{message}");
        self.place["offset"] = json!(offset);
        message["payload"]
            .as_u64()
            .unwrap_or_else(|| panic!("{message}"))
    }

    async fn take(&mut self, count: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(self.next().await);
        }
        taken
    }

    /// The next frame says that messages were missed; returns the reason.
    async fn missed(&mut self) -> String {
        let frame = self.client.json().await;
        assert_eq!(frame["type"], "joined", "{frame}");
        self.place = frame["payload"]["user"].clone();
        assert_eq!(self.place["recovered"], false, "{frame}");
        self.place["reason"].as_str().expect("a reason").to_owned()
    }
}

/// Sends `n` to `user` until it is accepted.
async fn tell(peer: &mut Peer, user: &str, n: u64) {
    until("the message is accepted", async || {
        let outcome = peer.ask(user, n).await;
        matches!(outcome, Outcome::Delivered | Outcome::Kept).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_devices_on_all_nodes_get_the_messages_of_two_senders_on_two_nodes_in_one_order() {
    const EACH: u64 = 200;
    let server = Server::start().await;
    let cluster = start(3, &server, "").await;
    let mut devices = Vec::new();
    for node in cluster.nodes.iter().chain(&cluster.nodes) {
        devices.push(Device::connect(node, "bob", None).await.0);
    }
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut cid = Peer::connect(&cluster.nodes[1], "cid").await;
    let send = async |peer: &mut Peer, first: u64| {
        for n in first..first + EACH {
            peer.send("bob", n).await;
        }
    };
    join(send(&mut ann, 0), send(&mut cid, EACH)).await;
    let expected = devices[0].take(2 * EACH as usize).await;
    for device in &mut devices[1..] {
        assert_eq!(device.take(2 * EACH as usize).await, expected);
    }
    for first in [0, EACH] {
        let of_sender = expected
            .iter()
            .copied()
            .filter(|n| (first..first + EACH).contains(n));
        assert!(of_sender.eq(first..first + EACH), "{expected:?}");
    }
    for device in &mut devices {
        device.client.expect_silence().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reconnects_to_another_node_gets_missed_messages() {
    let server = Server::start().await;
    let cluster = start(3, &server, "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let (mut bob, _) = Device::connect(&cluster.nodes[0], "bob", None).await;
    let mut sent = 0;
    for node in cluster.nodes.iter().cycle().skip(1).take(5) {
        let place = bob.place.clone();
        bob.client.close().await;
        // Some of them while its old node may still count as its node, some afterwards.
        for _ in 0..5 {
            sent += 1;
            tell(&mut ann, "bob", sent).await;
        }
        let answer;
        (bob, answer) = Device::connect(node, "bob", Some(&place)).await;
        assert_eq!(
            (&answer["recovered"], &answer["count"]),
            (&json!(true), &json!(5))
        );
        sent += 1;
        tell(&mut ann, "bob", sent).await;
        assert_eq!(bob.take(6).await, Vec::from_iter(sent - 5..=sent));
    }
    bob.client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_a_user_on_no_node_is_kept_for_a_client_of_any_node() {
    let server = Server::start().await;
    let cluster = start(2, &server, "").await;
    let (bob, _) = Device::connect(&cluster.nodes[1], "bob", None).await;
    let place = bob.place.clone();
    bob.client.close().await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let message = json!({"type": "test", "payload": 0, "receiverId": "bob"});
    let mut sent = 0;
    until("the node knows that the user is gone", async || {
        sent += 1;
        let answer = ann.answer_to(message.clone()).await;
        (answer["payload"]["status"] == "kept").then_some(())
    })
    .await;
    let (mut bob, answer) = Device::connect(&cluster.nodes[0], "bob", Some(&place)).await;
    assert_eq!(answer["count"], sent, "{answer}");
    bob.take(sent).await;
    bob.client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_lost_between_nodes_are_read_from_the_history() {
    let server = Server::start().await;
    let cluster = start(2, &server, "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let (mut bob, _) = Device::connect(&cluster.nodes[1], "bob", None).await;
    let mut sent = 0;
    for _ in 0..3 {
        server
            .command::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .await;
        let first = sent + 1;
        for _ in 0..10 {
            sent += 1;
            tell(&mut ann, "bob", sent).await;
        }
        assert_eq!(bob.take(10).await, Vec::from_iter(first..=sent));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_learn_that_redis_lost_the_history_and_continue() {
    let mut server = Server::start().await;
    let cluster = start(2, &server, "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let (mut first, _) = Device::connect(&cluster.nodes[0], "bob", None).await;
    let (mut second, _) = Device::connect(&cluster.nodes[1], "bob", None).await;
    tell(&mut ann, "bob", 1).await;
    for device in [&mut first, &mut second] {
        assert_eq!(device.next().await, 1);
    }
    let before = first.place.clone();
    server.kill9();
    drop(cluster.until_unready().await);
    server.restart_empty().await;
    cluster.until_ready().await;
    for device in [&mut first, &mut second] {
        assert_eq!(device.missed().await, "epoch");
    }
    assert_eq!(first.place["epoch"], second.place["epoch"]);
    tell(&mut ann, "bob", 2).await;
    for device in [&mut first, &mut second] {
        assert_eq!(device.next().await, 2);
    }
    let (mut late, answer) = Device::connect(&cluster.nodes[1], "bob", Some(&before)).await;
    assert_eq!(
        (&answer["recovered"], &answer["reason"]),
        (&json!(false), &json!("epoch"))
    );
    late.client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_is_switched_on_and_off_on_one_node_after_the_other() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bobs = Vec::new();
    for node in &cluster.nodes {
        bobs.push(Peer::connect(node, "bob").await);
    }
    let switch = async |node: usize, history: &str| {
        let text = config(&format!("n{node}"), &server.url(), history);
        cluster.nodes[node].replace("platform.toml", text.as_bytes());
        until("the configuration is in force", async || {
            let mut probe = Peer::try_connect(&cluster.nodes[node], "probe")
                .await
                .ok()?;
            let welcome = probe.frame().await?;
            (welcome["payload"].get("user").is_some() != history.is_empty()).then_some(())
        })
        .await;
    };
    let mut sent = 0;
    let mut check = async |has_number: bool| {
        sent += 1;
        tell(&mut ann, "bob", sent).await;
        for bob in &mut bobs {
            let message = bob.delivery().await;
            assert_eq!(message["payload"], sent);
            assert_eq!(message.get("offset").is_some(), has_number, "{message}");
        }
    };
    check(false).await;
    // The sender's node decides.
    for (node, history, has_number) in [
        (0, HISTORY, true),
        (1, HISTORY, true),
        (0, "", false),
        (1, "", false),
        (0, HISTORY, true),
    ] {
        switch(node, history).await;
        check(has_number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_worker_publishes_is_in_no_history() {
    let server = Server::start().await;
    let cluster = start(1, &server, "").await;
    let (mut bob, answer) = Device::connect(&cluster.nodes[0], "bob", None).await;
    let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
    let text = json!({"type": "news", "payload": 7, "receiverID": "bob"}).to_string();
    let channel = format!("server:{}", servers[0]);
    server.command::<u64>(&["PUBLISH", &channel, &text]).await;
    let message = bob.client.json().await;
    assert_eq!(
        (&message["payload"], message.get("offset")),
        (&json!(7), None)
    );
    let (mut again, recovered) = Device::connect(&cluster.nodes[0], "bob", Some(&answer)).await;
    assert_eq!(recovered["count"], 0);
    again.client.expect_silence().await;
}

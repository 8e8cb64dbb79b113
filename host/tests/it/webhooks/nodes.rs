//! Events of several nodes, which share the queues in Redis.

use futures_util::future::join_all;
use serde_json::Value;

use super::receiver::{Receiver, Reply};
use crate::{
    process,
    redis::{Server, until},
    redis_nodes::{Nodes, Peer, config, until_ready},
};

const RULES: &str = "[presence]\ngrace = \"10ms\"\n[[rooms]]\nmatch = \"seen*\"\npresence = true\n";

const ROOMS: [&str; 4] = [
    "room_occupied",
    "room_vacated",
    "member_joined",
    "member_left",
];

fn of_type(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["type"] == name).count()
}

async fn three_nodes(server: &Server, receiver: &Receiver) -> Nodes {
    let rules = format!("{RULES}{}", receiver.webhook(&ROOMS, ""));
    Nodes::start(3, &server.url(), &rules).await
}

/// Connects the user `ann` to each node and joins `rooms` with each connection.
async fn ann_joins_on_each(cluster: &Nodes, rooms: &[String]) -> Vec<Peer> {
    let mut peers = Vec::new();
    for node in &cluster.nodes {
        let mut ann = Peer::connect(node, "ann").await;
        for room in rooms {
            ann.join(room).await;
        }
        peers.push(ann);
    }
    peers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_together_report_a_room_and_its_members_once() {
    let server = Server::start().await;
    let receiver = Receiver::start().await;
    let cluster = three_nodes(&server, &receiver).await;
    let peers = ann_joins_on_each(&cluster, &["seen".to_owned()]).await;
    receiver
        .until_event(|event| event["type"] == "member_joined")
        .await;
    receiver
        .until_event(|event| event["type"] == "room_occupied")
        .await;
    for peer in peers {
        peer.close().await;
    }
    receiver
        .until_event(|event| event["type"] == "member_left")
        .await;
    receiver
        .until_event(|event| event["type"] == "room_vacated")
        .await;
    let events = receiver.events();
    for name in ROOMS {
        assert_eq!(of_type(&events, name), 1, "{name}: {events:?}");
    }
    // A room that is occupied again is reported again, by whichever node.
    let mut bob = Peer::connect(&cluster.nodes[2], "bob").await;
    bob.join("seen").await;
    receiver.until_event(|event| event["userId"] == "bob").await;
    until("the room is occupied again", async || {
        (of_type(&receiver.events(), "room_occupied") == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_are_left_on_all_nodes_at_once_are_reported_once() {
    const COUNT: usize = 40;
    let server = Server::start().await;
    let receiver = Receiver::start().await;
    let cluster = three_nodes(&server, &receiver).await;
    let rooms: Vec<_> = (0..COUNT).map(|number| format!("seen{number}")).collect();
    let peers = ann_joins_on_each(&cluster, &rooms).await;
    join_all(peers.into_iter().map(Peer::close)).await;
    let names = ["member_left", "room_vacated"];
    until("all rooms are reported as left", async || {
        let events = receiver.events();
        let are_all = |name| of_type(&events, name) >= COUNT;
        names.into_iter().all(are_all).then_some(())
    })
    .await;
    // A room that is used afterwards is reported after everything about the others.
    let mut bob = Peer::connect(&cluster.nodes[0], "bob").await;
    bob.join("seen").await;
    receiver.until_event(|event| event["userId"] == "bob").await;
    let events = receiver.events();
    let of_ann = events.iter().filter(|event| event["room"] != "seen");
    let of_ann: Vec<Value> = of_ann.cloned().collect();
    for name in ROOMS {
        assert_eq!(of_type(&of_ann, name), COUNT, "{name}: {of_ann:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_a_killed_node_queued_and_the_end_of_its_rooms_arrive_from_another() {
    let server = Server::start().await;
    let receiver = Receiver::start().await;
    receiver.reply(Reply::Status(500));
    let events = [&ROOMS[..], &["connected"]].concat();
    let rules = format!("{RULES}{}", receiver.webhook(&events, ""));
    let config = config("doomed", &server.url(), &rules);
    let mut doomed = process::Server::start(&config).await;
    until_ready(&doomed).await;
    let mut ann = Peer::connect(&doomed, "ann").await;
    ann.join("seen").await;
    until("all are queued", async || {
        let keys: Vec<String> = server.command(&["KEYS", "*:events"]).await;
        let length: usize = server.command(&["XLEN", keys.first()?]).await;
        (length == 3).then_some(())
    })
    .await;
    let request = receiver.until_requests(1).await.remove(0);
    doomed.signal(process::Signal::KILL);
    doomed.ended().await;
    receiver.reply(Reply::Status(200));
    let cluster = Nodes::start(1, &server.url(), &rules).await;
    receiver
        .until_event(|event| event["type"] == "room_vacated")
        .await;
    receiver
        .until_event(|event| event["type"] == "member_left")
        .await;
    let all = receiver.events();
    for name in events {
        assert_eq!(of_type(&all, name), 1, "{name}: {all:?}");
    }
    // The batch that was not accepted is the same.
    let accepted = receiver.requests().into_iter();
    let mut accepted = accepted.filter(|request| request.reply == Reply::Status(200));
    let first = accepted.next().expect("a request");
    assert_eq!(
        (first.id(), first.body.clone()),
        (request.id(), request.body)
    );
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_for_redis_and_for_the_next_start() {
    let mut server = Server::start().await;
    let receiver = Receiver::start().await;
    let redis = format!(
        "command_timeout = \"1s\"\n{}",
        receiver.webhook(&["connected"], "")
    );
    let cluster = Nodes::start(1, &server.url(), &redis).await;
    server.kill9();
    cluster.until_unready().await;
    let _ann = cluster.nodes[0].client("ann").await;
    server.restart_empty().await;
    receiver.until_event(|event| event["userId"] == "ann").await;
    // A node that ends leaves its events to others.
    receiver.reply(Reply::Status(500));
    let before = receiver.requests().len();
    let _bob = cluster.nodes[0].client("bob").await;
    receiver.until_requests(before + 1).await;
    for node in cluster.nodes {
        node.terminate();
        node.stopped().await;
    }
    receiver.reply(Reply::Status(200));
    let _next = Nodes::start(1, &server.url(), &redis).await;
    receiver.until_event(|event| event["userId"] == "bob").await;
    let of_bob = receiver
        .events()
        .into_iter()
        .filter(|event| event["userId"] == "bob");
    assert_eq!(of_bob.count(), 1);
}

//! Plugins that follow the members of rooms.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    api,
    concierge::{ask, concierge, expect, node, nodes, on_both},
    harness::{Client, Node},
    redis::Server,
    tokens::{JWT, connect, seconds_from_now, sign},
};

/// The plugin informs eve.
const WATCHED: &str = "{ watcher = \"eve\" }";

/// Checks the next change that eve learns of.
async fn changed(eve: &mut Client, change: &str, user: &str, room: &str, connections: u32) {
    let found = expect(eve, "membership").await;
    let found = [
        found["change"].clone(),
        found["user"].clone(),
        found["room"].clone(),
        found["connections"].clone(),
    ];
    assert_eq!(
        found,
        [json!(change), json!(user), json!(room), json!(connections)]
    );
}

async fn built_in(client: &mut Client, event_type: &str, room: &str) {
    let frame = json!({"type": event_type, "room": room, "id": "r"});
    client.send(&frame.to_string()).await;
    assert_eq!(expect(client, "ack").await["status"], "handled");
}

async fn backend(node: &Node, method: &str, room: &str, user: &str) -> Value {
    let path = format!("/api/rooms/{room}/members/{user}");
    let answer = api::ask(node, method, &path, "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["connections"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_learn_of_each_way_to_join_and_to_leave() {
    let kept = "[[rooms]]\nmatch = \"kept:*\"\nhistory = { size = 5, time = \"5m\" }\n";
    let config = format!("{kept}{}", concierge("concierge", WATCHED));
    on_both(&config, async |node| {
        let mut eve = node.reachable("eve").await;
        for room in ["café", "kept:1"] {
            let mut ann = node.reachable("ann").await;
            let mut other = node.reachable("ann").await;
            built_in(&mut ann, "join", room).await;
            changed(&mut eve, "joined", "ann", room, 1).await;
            built_in(&mut ann, "join", room).await;
            built_in(&mut other, "join", room).await;
            changed(&mut eve, "joined", "ann", room, 2).await;
            built_in(&mut ann, "leave", room).await;
            changed(&mut eve, "left", "ann", room, 1).await;
            built_in(&mut ann, "leave", room).await;
            let steps = json!({"actions": [{"join": room}, {"leave": room}, {"join": room}]});
            ask(&mut ann, steps).await;
            changed(&mut eve, "joined", "ann", room, 2).await;
            changed(&mut eve, "left", "ann", room, 1).await;
            changed(&mut eve, "joined", "ann", room, 2).await;
            let path = room.replace('é', "%C3%A9");
            assert_eq!(backend(node, "DELETE", &path, "ann").await, 2);
            let mut counts = Vec::new();
            for _ in 0..2 {
                let left = expect(&mut eve, "membership").await;
                assert_eq!(
                    (&left["change"], &left["room"]),
                    (&json!("left"), &json!(room))
                );
                counts.push(left["connections"].as_u64());
            }
            counts.sort();
            assert_eq!(counts, [Some(0), Some(1)]);
            other.close().await;
            node.until_metric("wss_active_connections ", |count| count == 2.0)
                .await;
            assert_eq!(backend(node, "PUT", &path, "ann").await, 1);
            changed(&mut eve, "joined", "ann", room, 1).await;
            ann.close().await;
            changed(&mut eve, "left", "ann", room, 0).await;
            eve.expect_silence().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_a_token_names_are_joined_with_its_claims_and_left_with_those_of_the_last_token()
{
    let node = node(&format!("{JWT}{}", concierge("concierge", WATCHED))).await;
    let signed = |user: &str, more: &str| {
        let exp = seconds_from_now(3600.0);
        sign(&json!({"sub": user, "exp": exp, "join": ["lobby"], "level": more}))
    };
    let mut eve = connect(
        &node,
        &sign(&json!({"sub": "eve", "exp": seconds_from_now(3600.0)})),
    )
    .await;
    let mut ann = connect(&node, &signed("ann", "low")).await;
    let joined = expect(&mut eve, "membership").await;
    assert_eq!(
        (
            &joined["change"],
            &joined["room"],
            &joined["claims"]["level"]
        ),
        (&json!("joined"), &json!("lobby"), &json!("low"))
    );
    crate::tokens::replace(&mut ann, &json!(signed("ann", "high"))).await;
    ann.close().await;
    let left = expect(&mut eve, "membership").await;
    assert_eq!(
        (
            &left["change"],
            &left["connections"],
            &left["claims"]["level"]
        ),
        (&json!("left"), &json!(0), &json!("high"))
    );
}

#[tokio::test]
async fn joins_and_leaves_by_its_own_actions_are_not_reported_and_take_place() {
    let config =
        "{ watcher = \"eve\", joined = [{ join = \"annex\" }], left = [{ leave = \"annex\" }] }";
    let node = node(&concierge("concierge", config)).await;
    let mut eve = node.reachable("eve").await;
    let mut ann = node.reachable("ann").await;
    built_in(&mut ann, "join", "lobby").await;
    changed(&mut eve, "joined", "ann", "lobby", 1).await;
    // A frame of a member is delivered to the room.
    ann.send(r#"{"type":"x","room":"annex","id":"x","payload":1}"#)
        .await;
    assert_eq!(expect(&mut ann, "x").await, 1);
    assert_eq!(expect(&mut ann, "ack").await["status"], "delivered");
    built_in(&mut ann, "leave", "lobby").await;
    changed(&mut eve, "left", "ann", "lobby", 0).await;
    ann.send(r#"{"type":"x","room":"annex","id":"x","payload":1}"#)
        .await;
    assert_eq!(ann.error_code().await, "not_in_room");
    eve.expect_silence().await;
}

#[tokio::test]
async fn a_connection_that_closes_leaves_its_rooms_before_its_end_and_acts_only_on_others() {
    let steps = "left = [{ join = \"annex\" }, { send = { type = \"bye\", to = \"sender\" } }, { announce = { type = \"bye\", to = { user = \"eve\" } } }]";
    let config = format!(
        "{}[[plugins]]\nname = \"follower\"\npath = \"follower.wasm\"\nevents = [\"*\"]\n{}config = {{ watcher = \"eve\", idle = true }}\n",
        concierge("concierge", &format!("{{ watcher = \"eve\", {steps} }}")),
        crate::guests::PATIENT
    );
    let node = node(&config).await;
    let mut eve = node.reachable("eve").await;
    let mut ann = node.reachable("ann").await;
    for room in ["r1", "r2"] {
        built_in(&mut ann, "join", room).await;
        changed(&mut eve, "joined", "ann", room, 1).await;
    }
    ann.close().await;
    for room in ["r1", "r2"] {
        expect(&mut eve, "bye").await;
        changed(&mut eve, "left", "ann", room, 0).await;
    }
    let gone = expect(&mut eve, "gone").await;
    assert_eq!(gone["gone"], "ann");
    let gone = "wss_messages_dropped_total{reason=\"connection_gone\"} ";
    assert_eq!(node.metric(gone).await, Some(4.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_connections_that_join_or_leave_together_one_is_the_first_and_one_the_last() {
    const CONNECTIONS: u64 = 10;
    let limits = "[limits]\nconnections_per_user_max = 0\n";
    let node = node(&format!("{limits}{}", concierge("concierge", WATCHED))).await;
    let mut eve = node.reachable("eve").await;
    let clients = (0..CONNECTIONS).map(|_| node.reachable("ann"));
    let mut clients: Vec<Client> = join_all(clients).await;
    for round in 0..3 {
        join_all(
            clients
                .iter_mut()
                .map(|client| built_in(client, "join", "r")),
        )
        .await;
        let mut counts = counts(&mut eve, "joined", CONNECTIONS).await;
        assert_eq!(
            counts,
            (1..=CONNECTIONS).collect::<Vec<_>>(),
            "round {round}"
        );
        join_all(
            clients
                .iter_mut()
                .map(|client| built_in(client, "leave", "r")),
        )
        .await;
        counts = self::counts(&mut eve, "left", CONNECTIONS).await;
        assert_eq!(
            counts,
            (0..CONNECTIONS).collect::<Vec<_>>(),
            "round {round}"
        );
    }
    join_all(
        clients
            .iter_mut()
            .map(|client| built_in(client, "join", "r")),
    )
    .await;
    counts(&mut eve, "joined", CONNECTIONS).await;
    join_all(clients.into_iter().map(Client::close)).await;
    let counts = counts(&mut eve, "left", CONNECTIONS).await;
    assert_eq!(counts, (0..CONNECTIONS).collect::<Vec<_>>());
}

/// The counts of the next changes, sorted.
async fn counts(eve: &mut Client, change: &str, most: u64) -> Vec<u64> {
    let mut counts = Vec::new();
    for _ in 0..most {
        let found = expect(eve, "membership").await;
        assert_eq!(found["change"], change);
        counts.push(found["connections"].as_u64().expect("a number"));
    }
    counts.sort_unstable();
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_follow_the_members_on_their_own_node() {
    let server = Server::start().await;
    let nodes: [Node; 2] = nodes(&server, &concierge("concierge", WATCHED)).await;
    let mut eve = nodes[0].reachable("eve").await;
    let (mut here, mut there) = (
        nodes[0].reachable("ann").await,
        nodes[1].reachable("ann").await,
    );
    built_in(&mut here, "join", "r").await;
    changed(&mut eve, "joined", "ann", "r", 1).await;
    built_in(&mut there, "join", "r").await;
    changed(&mut eve, "joined", "ann", "r", 1).await;
    assert_eq!(backend(&nodes[1], "DELETE", "r", "ann").await, 2);
    for _ in 0..2 {
        changed(&mut eve, "left", "ann", "r", 0).await;
    }
}

#[tokio::test]
async fn a_failing_plugin_does_not_prevent_joins_or_leaves() {
    let clumsy = concierge("clumsy", "{ answers = [], clumsy = true }");
    let node = node(&format!("{clumsy}{}", concierge("concierge", WATCHED))).await;
    let mut eve = node.reachable("eve").await;
    let mut ann = node.reachable("ann").await;
    built_in(&mut ann, "join", "r").await;
    changed(&mut eve, "joined", "ann", "r", 1).await;
    built_in(&mut ann, "leave", "r").await;
    changed(&mut eve, "left", "ann", "r", 0).await;
    let failures = "wss_plugin_failures_total{plugin=\"clumsy\",kind=\"trap\"} ";
    assert_eq!(node.metric(failures).await, Some(2.0));
}

//! Changes to `platform.toml` while the server runs.

use serde_json::json;

use crate::{
    harness::{Client, Node},
    process::{Server, Signal},
    raw::{PING, RawClient},
};

const SLOW_CONSUMERS: &str = "wss_messages_dropped_total{reason=\"slow_consumer\"} ";

/// Waits until the node uses a configuration in which a connection may join at most `max` rooms.
async fn until_rooms_max(node: &Node, max: usize) {
    loop {
        let mut probe = node.connect("probe", Some("signalbox.v1")).await.unwrap();
        let welcome = probe.json().await;
        probe.close().await;
        if welcome["payload"]["limits"]["roomsMax"] == max {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn ack_or_error(client: &mut Client, frame: &str) -> String {
    client.send(frame).await;
    let answer = client.json().await;
    match answer["payload"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None => answer["type"].as_str().unwrap().to_owned(),
    }
}

fn heartbeat_of(bytes: usize) -> String {
    json!({"type": "heartbeat", "id": "1", "payload": "x".repeat(bytes)}).to_string()
}

#[tokio::test]
async fn changed_limits_hold_for_connections_that_exist() {
    let node = Node::start("[limits]\nrooms_per_connection_max = 1").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let join = |room: &str| json!({"type": "join", "room": room, "id": "j"}).to_string();
    assert_eq!(ack_or_error(&mut ann, &join("a")).await, "ack");
    assert_eq!(ack_or_error(&mut ann, &join("b")).await, "too_many_rooms");
    node.replace(
        "platform.toml",
        b"[limits]\nrooms_per_connection_max = 2\nframe_bytes_max = \"1KiB\"\nconnections_per_user_max = 1\n\
          messages_per_second = 1\nmessages_burst = 3",
    );
    until_rooms_max(&node, 2).await;
    assert_eq!(ack_or_error(&mut ann, &join("b")).await, "ack");
    let mut codes = Vec::new();
    for _ in 0..10 {
        codes.push(ack_or_error(&mut ann, &heartbeat_of(1)).await);
    }
    assert!(codes.contains(&"rate_limited".to_owned()), "{codes:?}");
    assert_eq!(node.refused("/ws?userId=bob", &[]).await.status, 429);
    bob.send(&heartbeat_of(2000)).await;
    assert_eq!(bob.closed().await, 1009);
}

#[tokio::test]
async fn a_raised_frame_limit_holds_for_connections_that_exist() {
    let node = Node::start("[limits]\nframe_bytes_max = \"1KiB\"").await;
    let mut ann = node.client("ann").await;
    assert_eq!(ack_or_error(&mut ann, &heartbeat_of(900)).await, "ack");
    node.replace(
        "platform.toml",
        b"[limits]\nrooms_per_connection_max = 2\nframe_bytes_max = \"128KiB\"",
    );
    until_rooms_max(&node, 2).await;
    assert_eq!(ack_or_error(&mut ann, &heartbeat_of(100_000)).await, "ack");
    ann.send(&heartbeat_of(131_000)).await;
    ann.send(&heartbeat_of(132_000)).await;
    assert_eq!(ann.closed().await, 1009);
}

#[tokio::test]
async fn a_changed_outbox_limit_holds_for_connections_that_exist() {
    let node = Node::start("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let message =
        json!({"type": "x", "payload": "y".repeat(60_000), "receiverId": "bob"}).to_string();
    ann.send(&message).await;
    assert_eq!(bob.json().await["type"], "x");
    node.replace(
        "platform.toml",
        b"[limits]\nrooms_per_connection_max = 2\noutbox_bytes_max = \"4KiB\"",
    );
    until_rooms_max(&node, 2).await;
    // Bob reads nothing meanwhile: his socket buffers hold only a bounded amount.
    while node
        .metric(SLOW_CONSUMERS)
        .await
        .is_none_or(|closed| closed == 0.0)
    {
        ann.send(&message).await;
    }
    assert_eq!(bob.closed().await, 4001);
}

#[tokio::test]
async fn a_changed_heartbeat_holds_for_connections_that_exist() {
    let hour = "ping_interval = \"1h\"\nidle_timeout = \"2h\"";
    let node = Node::start(&format!("[server]\n{hour}")).await;
    let (mut ann, mut bob) = (
        RawClient::connect(&node, "ann").await,
        RawClient::connect(&node, "bob").await,
    );
    node.replace(
        "platform.toml",
        b"[server]\nping_interval = \"20ms\"\nidle_timeout = \"2h\"",
    );
    assert_eq!(ann.frame().await.unwrap().unwrap().0, PING);
    node.replace(
        "platform.toml",
        b"[server]\nping_interval = \"20ms\"\nidle_timeout = \"30ms\"",
    );
    assert_eq!(bob.closed().await, 4002);
}

#[tokio::test]
async fn changed_origins_hold_for_the_next_upgrade() {
    let node = Node::start("").await;
    let origin = [("Origin", "https://app.example.com")];
    assert_eq!(node.refused("/ws?userId=ann", &origin).await.status, 403);
    node.replace(
        "platform.toml",
        b"[server]\nallowed_origins = [\"https://app.example.com\"]\n[limits]\nrooms_per_connection_max = 2",
    );
    until_rooms_max(&node, 2).await;
    node.upgrade("/ws?userId=ann", &origin).await.unwrap();
}

#[tokio::test]
async fn a_key_that_needs_a_restart_is_named_and_left_as_it_was() {
    let server = Server::start("").await;
    let mut ann = server.connect("ann", Some("signalbox.v1")).await.unwrap();
    let node = ann.json().await["payload"]["nodeId"].clone();
    let secret = "0123456789abcdef0123456789abcdef";
    let restart = format!(
        "[server]\nlisten = \"127.0.0.2:0\"\nnode_id = \"other\"\n[metrics]\nprometheus = false\n\
         [auth]\nmode = \"jwt\"\njwt_secret = \"{secret}\"\n[limits]\nrooms_per_connection_max = 3\n"
    );
    server.configure(&restart);
    let line = server.until_log("take effect at the next start").await;
    for key in [
        "server.listen",
        "server.node_id",
        "metrics.prometheus",
        "auth.mode",
    ] {
        assert!(line.contains(key), "{key}: {line}");
    }
    server.until_log("configuration applied").await;
    assert!(!server.log().concat().contains(secret));
    // Settings that can change at run time have changed, the others have not.
    let mut bob = server.connect("bob", Some("signalbox.v1")).await.unwrap();
    let welcome = bob.json().await["payload"].clone();
    assert_eq!(
        (&welcome["nodeId"], &welcome["limits"]["roomsMax"]),
        (&node, &json!(3))
    );
    assert_eq!(server.get("/metrics").await.0, 200);
    // Once the file matches the running configuration again, there is nothing to report.
    server.configure("[limits]\nrooms_per_connection_max = 4\n");
    loop {
        let mut cid = server.connect("cid", Some("signalbox.v1")).await.unwrap();
        if cid.json().await["payload"]["limits"]["roomsMax"] == 4 {
            break;
        }
        cid.close().await;
    }
    let is_pending = |line: &&String| line.contains("take effect at the next start");
    assert_eq!(server.log().iter().filter(is_pending).count(), 1);
    ann.expect_silence().await;
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing_and_is_reported_with_line_and_key() {
    let server = Server::start("[limits]\nrooms_per_connection_max = 3\n").await;
    let mut ann = server.connect("ann", Some("signalbox.v1")).await.unwrap();
    ann.json().await;
    server.configure(
        "[limits]\nrooms_per_connection_max = 4\nframe_bytes_mx = \"1KiB\"\nmessages_burst = -1\n",
    );
    server
        .until_log("configuration refused, the old one stays in force")
        .await;
    server
        .until_log(
            "platform.toml:3:1: limits.frame_bytes_mx: unknown key; did you mean frame_bytes_max",
        )
        .await;
    server
        .until_log("platform.toml:4:18: limits.messages_burst: ")
        .await;
    let mut bob = server.connect("bob", Some("signalbox.v1")).await.unwrap();
    assert_eq!(bob.json().await["payload"]["limits"]["roomsMax"], 3);
    assert_eq!(
        server.metric("wss_config_reloads_failed_total ").await,
        Some(1.0)
    );
    ann.expect_silence().await;
    // An incomplete file is rejected.
    server.configure("[limits\n");
    server.until_log("platform.toml:1:").await;
    // A valid one is applied again.
    server.configure("[limits]\nrooms_per_connection_max = 5\n");
    server.until_log("configuration applied").await;
    let mut cid = server.connect("cid", Some("signalbox.v1")).await.unwrap();
    assert_eq!(cid.json().await["payload"]["limits"]["roomsMax"], 5);
}

#[tokio::test]
async fn sighup_reads_the_configuration_and_the_plugins_again() {
    let server = Server::start("").await;
    let mut ann = server.client("ann").await;
    for times in 1..=2 {
        server.signal(Signal::HUP);
        let applied = async {
            while server
                .log()
                .iter()
                .filter(|line| line.contains("configuration applied"))
                .count()
                < times
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(crate::harness::PATIENCE, applied)
            .await
            .expect("SIGHUP was handled");
        ann.expect_silence().await;
    }
}

//! Everything a plugin can do: every action, every destination, and the hooks for connections that open, close, and
//! join rooms.

use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, component},
    harness::{Client, Node},
};

/// The `follower` guest, configured with the TOML table `config`.
fn follower(name: &str, config: &str) -> String {
    format!(
        "[[plugins]]\nname = \"{name}\"\npath = \"follower.wasm\"\nevents = [\"*\"]\n{PATIENT}config = {config}\n"
    )
}

async fn node(config: &str) -> Node {
    Node::start_with(&[("follower.wasm", &component("follower"))], config).await
}

/// Sends `bob` a message at which the plugin runs `steps`.
async fn have_done(client: &mut Client, steps: Value) {
    let message =
        json!({"type": "follower.do", "payload": steps, "receiverId": "bob", "id": "done"});
    client.send(&message.to_string()).await;
}

fn post(event_type: &str, to: Value) -> Value {
    json!({"type": event_type, "to": to, "payload": {"n": 1}})
}

#[tokio::test]
async fn a_handler_sends_to_each_destination_in_two_names() {
    let node = node(&follower("follower", "{}")).await;
    let mut ann = node.connect("ann", None).await.unwrap();
    let mut other_ann = node.reachable("ann").await;
    let (mut bob, mut cid) = (node.reachable("bob").await, node.reachable("cid").await);
    cid.send(r#"{"type":"join","room":"r","id":"j"}"#).await;
    cid.json().await;
    for (action, sender) in [("send", "ann"), ("announce", "")] {
        let steps = json!([
            {action: post("to_sender", json!("sender"))},
            {action: post("to_user", json!({"user": "bob"}))},
            {action: post("to_room", json!({"room": "r"}))},
            {action: post("to_everyone", json!("everyone"))},
            {action: post("to_nobody", json!(null))},
        ]);
        have_done(&mut ann, steps).await;
        let expect = async |client: &mut Client, event_type: &str, receiver: &str| {
            let message = client.json().await;
            assert_eq!(
                (
                    &message["type"],
                    &message["receiverID"],
                    &message["senderId"],
                    &message["payload"]
                ),
                (
                    &json!(event_type),
                    &json!(receiver),
                    &json!(sender),
                    &json!({"n": 1})
                )
            );
            message
        };
        expect(&mut ann, "to_sender", "ann").await;
        expect(&mut bob, "to_user", "bob").await;
        let in_room = expect(&mut cid, "to_room", "").await;
        assert_eq!(in_room["room"], "r");
        // The sender's other connection gets messages to everyone, but not messages to the sending connection.
        for client in [&mut ann, &mut other_ann, &mut bob, &mut cid] {
            expect(client, "to_everyone", "").await;
        }
        assert_eq!(ann.json().await["payload"]["status"], "handled");
    }
    assert_eq!(
        node.metric("wss_messages_dropped_total{reason=\"offline\"} ")
            .await,
        Some(2.0),
        "what is for nobody"
    );
}

#[tokio::test]
async fn a_handler_delivers_joins_and_leaves() {
    let node = node(&follower("follower", "{}")).await;
    let mut ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
    let mut bob = node.reachable("bob").await;
    assert_eq!(ann.json().await["type"], "welcome");
    let to_room = post("to_room", json!({"room": "r"}));
    let steps = json!([
        {"join": "r"}, {"announce": to_room}, {"leave": "r"}, {"announce": to_room}, "deliver",
    ]);
    have_done(&mut ann, steps.clone()).await;
    for expected in ["joined", "to_room", "left"] {
        assert_eq!(ann.json().await["type"], expected);
    }
    let ack = ann.json().await["payload"].clone();
    assert_eq!(ack["status"], "delivered");
    let message = bob.json().await;
    assert_eq!(
        (
            &message["type"],
            &message["senderId"],
            &message["payload"],
            &message["messageId"]
        ),
        (
            &json!("follower.do"),
            &json!("ann"),
            &steps,
            &ack["messageId"]
        )
    );
}

#[tokio::test]
async fn a_handler_disconnects_with_its_own_code_after_its_earlier_messages() {
    let config = r#"{ watcher = "bob" }"#;
    let node = node(&follower("follower", config)).await;
    let mut bob = node.reachable("bob").await;
    for code in [4000, 4321, 4501, 4999] {
        let mut ann = node.client("ann").await;
        let steps = json!([
            {"send": post("last", json!("sender"))},
            {"disconnect": [code, "that was enough"]},
            {"send": post("too_late", json!("sender"))},
        ]);
        have_done(&mut ann, steps).await;
        assert_eq!(ann.json().await["type"], "last");
        assert_eq!(
            ann.closed_with_reason().await,
            (code, "that was enough".to_owned())
        );
        assert_eq!(
            bob.json().await["payload"],
            json!({"gone": "ann", "code": code, "reason": "that was enough"})
        );
    }
    // A close that the server decided on does not count as abnormal.
    assert_eq!(
        node.metric("wss_unexpected_disconnects_total ").await,
        Some(0.0)
    );
}

#[tokio::test]
async fn actions_of_on_connect_run_before_the_first_message() {
    let config = r#"{ connected = [
        { join = "lobby" },
        { announce = { type = "came", to = { room = "lobby" } } },
        { send = { type = "hello", to = "sender" } },
    ] }"#
        .replace('\n', "");
    let node = node(&follower("follower", &config)).await;
    let mut ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
    ann.send(r#"{"type":"x","payload":1,"room":"lobby"}"#).await;
    for expected in ["welcome", "joined", "came", "hello", "x"] {
        assert_eq!(ann.json().await["type"], expected);
    }
}

#[tokio::test]
async fn a_connection_that_a_plugin_refuses_is_closed_with_4502_and_why() {
    let config = r#"{ banned = ["mallory"], watcher = "bob" }"#;
    let node = node(&follower("follower", config)).await;
    let mut bob = node.reachable("bob").await;
    let mut mallory = node.client("mallory").await;
    assert_eq!(
        mallory.closed_with_reason().await,
        (
            4502,
            "banned: come back when you have cooled down".to_owned()
        )
    );
    bob.send(r#"{"type":"x","payload":1,"receiverId":"mallory","id":"1"}"#)
        .await;
    assert_eq!(bob.json().await["payload"]["status"], "offline");
    assert_eq!(
        node.metric("wss_closes_total{code=\"refused\"} ").await,
        Some(1.0)
    );
}

#[tokio::test]
async fn plugins_that_admitted_a_connection_learn_that_another_refused_it() {
    let first = r#"{ idle = true, watcher = "bob", connected = [{ announce = { type = "came", to = "everyone" } }] }"#;
    let config = [
        follower("first", first),
        follower("second", r#"{ idle = true, banned = ["mallory"] }"#),
        follower("third", r#"{ idle = true, watcher = "cid" }"#),
    ];
    let node = node(&config.concat()).await;
    let (mut bob, mut cid) = (node.client("bob").await, node.client("cid").await);
    for client in [&mut bob, &mut cid] {
        assert_eq!(client.json().await["type"], "came");
    }
    assert_eq!(bob.json().await["type"], "came", "for the second");
    let mut mallory = node.client("mallory").await;
    assert_eq!(mallory.closed().await, 4502);
    // The first plugin's actions for the connection are dropped, but it is notified of the close.
    let gone = bob.json().await["payload"].clone();
    assert_eq!(
        (&gone["gone"], &gone["code"]),
        (&json!("mallory"), &json!(4502))
    );
    // The third plugin never saw the connection.
    bob.close().await;
    assert_eq!(cid.json().await["payload"]["gone"], "bob");
}

#[tokio::test]
async fn a_plugin_learns_how_a_connection_ended() {
    let node = node(&follower("follower", r#"{ watcher = "bob" }"#)).await;
    let mut bob = node.reachable("bob").await;
    node.client("ann").await.close().await;
    assert_eq!(
        bob.json().await["payload"],
        json!({"gone": "ann", "code": 1000, "reason": ""})
    );
    drop(node.client("cid").await);
    let gone = bob.json().await["payload"].clone();
    assert_eq!(
        (&gone["gone"], &gone["code"]),
        (&json!("cid"), &json!(1006))
    );
}

#[tokio::test]
async fn actions_for_a_closed_connection_have_no_effect_and_are_counted() {
    let config = r#"{ watcher = "bob", disconnected = [
        { send = { type = "to_sender", to = "sender" } },
        { announce = { type = "to_sender", to = "sender" } },
        { join = "r" }, { leave = "r" }, "deliver", { disconnect = [4999, "again"] },
        { send = { type = "to_user", to = { user = "bob" } } },
    ] }"#
        .replace('\n', "");
    let node = node(&follower("follower", &config)).await;
    let mut bob = node.reachable("bob").await;
    node.client("ann").await.close().await;
    let message = bob.json().await;
    assert_eq!(
        (&message["type"], &message["senderId"]),
        (&json!("to_user"), &json!("ann"))
    );
    assert_eq!(bob.json().await["type"], "gone");
    assert_eq!(
        node.metric("wss_messages_dropped_total{reason=\"connection_gone\"} ")
            .await,
        Some(6.0)
    );
}

#[tokio::test]
async fn a_plugin_decides_about_joins() {
    let node = node(&follower("follower", r#"{ closed = ["secret"] }"#)).await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"join","room":"secret","id":"1"}"#)
        .await;
    let error = ann.json().await["payload"].clone();
    assert_eq!(
        (
            &error["id"],
            &error["code"],
            &error["plugin"],
            &error["message"]
        ),
        (
            &json!("1"),
            &json!("closed"),
            &json!("follower"),
            &json!("ann may not be in secret")
        )
    );
    ann.send(r#"{"type":"x","payload":1,"room":"secret"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["code"], "not_in_room");
    ann.send(r#"{"type":"join","room":"open","id":"2"}"#).await;
    assert_eq!(ann.json().await["type"], "ack");
    // Other plugins cannot veto an action of a plugin.
    have_done(&mut ann, json!([{"join": "secret"}])).await;
    assert_eq!(ann.json().await["type"], "ack");
    ann.send(r#"{"type":"x","payload":2,"room":"secret"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], 2);
}

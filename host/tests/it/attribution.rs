//! Attribution: the sender can see which version of which plugin saw a message, if that is allowed.

use serde_json::{Value, json};

use crate::{
    admin_plugins::{plugin, push},
    cluster_swap::version as label,
    guests::{PATIENT, stamped},
    harness::{Client, Endpoint, Node},
    logged::{Logged, message},
    process::Signal,
    redis::until,
};

const TRACED: &str = "[server]\ntrace_plugins = true\n";

/// Two plugins; only the second one sees `both`.
fn chain() -> String {
    format!(
        "{}[[plugins]]\nname = \"other\"\npath = \"other.wasm\"\nevents = [\"both\"]\n{PATIENT}\
         config = {{ name = \"other\" }}\n",
        crate::admin_plugins::config("a")
    )
}

/// A component that declares its version.
fn versioned(component: Vec<u8>, version: &str) -> Vec<u8> {
    let name = b"version";
    let length = u8::try_from(1 + name.len() + version.len()).expect("a short version");
    let head = [0, length, u8::try_from(name.len()).expect("a short name")];
    [&component, &head[..], name, version.as_bytes()].concat()
}

fn files() -> [(&'static str, Vec<u8>); 2] {
    [
        ("stamp.wasm", stamped("1")),
        ("other.wasm", versioned(stamped("9"), "1.2.3-beta")),
    ]
}

async fn start(config: &str) -> Node {
    let files = files();
    let files = files.each_ref().map(|(name, bytes)| (*name, &bytes[..]));
    Node::start_with(&files, config).await
}

async fn connect(node: &Endpoint, query: &str, protocol: Option<&str>) -> Client {
    let protocol = protocol.map(|protocol| ("Sec-WebSocket-Protocol", protocol));
    let path = format!("/ws?userId=ann{query}");
    let (mut client, _) = node
        .upgrade(&path, protocol.as_slice())
        .await
        .expect("it is accepted");
    if protocol.is_some() {
        assert_eq!(client.json().await["type"], "welcome");
    }
    client
}

/// The attribution in the `ack` of a message of this type.
async fn acked(client: &mut Client, event_type: &str, payload: Value) -> Value {
    let message =
        json!({"type": event_type, "payload": payload, "receiverId": "nobody", "id": "1"});
    client.send(&message.to_string()).await;
    let ack = client.json().await;
    assert_eq!(ack["type"], "ack", "{ack}");
    ack["payload"]["plugins"].clone()
}

#[tokio::test]
async fn a_request_for_seen_versions_is_answered_in_order() {
    let node = start(&format!("{TRACED}{}", chain())).await;
    let mut ann = connect(&node, "&trace=plugins", Some("signalbox.v1")).await;
    let [(_, stamp), (_, other)] = files();
    let stamp_1 = json!({"name": "stamp", "version": null, "sha256": label(&stamp)});
    let other = json!({"name": "other", "version": "1.2.3-beta", "sha256": label(&other)});
    assert_eq!(acked(&mut ann, "one", json!({})).await, json!([stamp_1]));
    assert_eq!(
        acked(&mut ann, "both", json!({})).await,
        json!([stamp_1, other])
    );
    // The first plugin drops the message, so the second never transforms it; but it did validate it.
    assert_eq!(
        acked(&mut ann, "both", json!({"drop": "a"})).await,
        json!([stamp_1, other])
    );
    // No plugin sees messages that the server handles itself.
    let heartbeat = acked(&mut ann, "heartbeat", json!({})).await;
    assert_eq!(heartbeat, json!([]));
    // The first message after a swap names the new version.
    assert_eq!(push(&node, &stamped("2")).await.status, 200);
    let stamp_2 = json!({"name": "stamp", "version": null, "sha256": label(&stamped("2"))});
    assert_eq!(acked(&mut ann, "one", json!({})).await, json!([stamp_2]));
    assert_eq!(plugin(&node).await["live"], label(&stamped("2")));
}

#[tokio::test]
async fn only_clients_that_ask_see_the_versions() {
    let node = start(&format!("{TRACED}{}", chain())).await;
    for (query, protocol) in [
        ("", Some("signalbox.v1")),
        ("&trace=all", Some("signalbox.v1")),
        ("&trace=plugins", None),
    ] {
        let mut ann = connect(&node, query, protocol).await;
        let plugins = acked(&mut ann, "one", json!({})).await;
        assert_eq!(plugins, Value::Null, "{query} {protocol:?}");
    }
    let forbidding = start(&chain()).await;
    let mut ann = connect(&forbidding, "&trace=plugins", Some("signalbox.v1")).await;
    assert_eq!(acked(&mut ann, "one", json!({})).await, Value::Null);
    // Once it is allowed, connections opened from then on can ask for it.
    let allowed = crate::harness::with_plugin_cache(&format!("{TRACED}{}", chain()));
    forbidding.replace("platform.toml", allowed.as_bytes());
    until("it is allowed", async || {
        let mut ann = connect(&forbidding, "&trace=plugins", Some("signalbox.v1")).await;
        acked(&mut ann, "one", json!({}))
            .await
            .is_array()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_swap_is_logged_with_the_version_that_the_component_says_it_is() {
    let config = crate::admin_plugins::config("a");
    let first = versioned(stamped("1"), "1.0.0");
    let server = Logged::start(&[("stamp.wasm", &first)], &config).await;
    server.replace("stamp.wasm", &versioned(stamped("2"), "2.0.0"));
    let line = server
        .until_line(|line| message(line) == "plugin swapped" && line["trigger"] == "file")
        .await;
    assert_eq!(line["semver"], "2.0.0");
    server.signal(Signal::TERM);
}

//! Nodes with the guest `concierge`, which answers requests and follows the members of rooms.

use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, component},
    harness::{Client, Node},
    redis::Server,
    redis_nodes::until_ready,
};

const WITH_KEYS: &str = "[api]\nkeys = [\"first-key-of-tests\", \"second-key-of-tests\"]\n";

/// The concierge, configured with the inline table `config`.
pub(crate) fn concierge(name: &str, config: &str) -> String {
    format!(
        "[[plugins]]\nname = \"{name}\"\npath = \"concierge.wasm\"\nevents = [\"*\"]\n{PATIENT}config = {config}\n"
    )
}

/// A node with `config`, which begins with tables, and the guests that it names.
pub(crate) async fn node(config: &str) -> Node {
    let guests = ["concierge", "follower"].map(|name| (format!("{name}.wasm"), component(name)));
    let files: Vec<_> = guests
        .iter()
        .map(|(file, bytes)| (file.as_str(), bytes.as_slice()))
        .collect();
    Node::start_with(&files, &format!("{WITH_KEYS}{config}")).await
}

/// `config` for a node called `name` on `server`.
fn on_redis(server: &Server, name: &str, config: &str) -> String {
    format!(
        "[server]\nnode_id = \"{name}\"\n[broker]\nkind = \"redis\"\n\
         [redis]\nurl = \"{}\"\ncommand_timeout = \"10s\"\n{config}",
        server.url()
    )
}

/// Nodes on one Redis that are ready.
pub(crate) async fn nodes<const N: usize>(server: &Server, config: &str) -> [Node; N] {
    let mut nodes = Vec::new();
    for index in 0..N {
        let node = node(&on_redis(server, &format!("n{index}"), config)).await;
        until_ready(&node).await;
        nodes.push(node);
    }
    nodes.try_into().unwrap_or_else(|_| panic!("{N} nodes"))
}

/// Runs `check` on a node with `config` in memory, and on one with Redis.
pub(crate) async fn on_both(config: &str, check: impl AsyncFn(&Node)) {
    check(&node(config).await).await;
    let server = Server::start().await;
    let [on_redis] = nodes(&server, config).await;
    check(&on_redis).await;
}

/// The next frame, which is of this type.
pub(crate) async fn expect(client: &mut Client, event_type: &str) -> Value {
    let mut frame = client.json().await;
    assert_eq!(frame["type"], event_type, "{frame}");
    frame["payload"].take()
}

/// Sends `payload` as a request, and returns the payload of the `ack`.
pub(crate) async fn ask(client: &mut Client, payload: Value) -> Value {
    let request = json!({"type": "ask.it", "id": "q", "payload": payload});
    client.send(&request.to_string()).await;
    expect(client, "ack").await
}

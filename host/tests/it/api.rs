//! The backend API over HTTP, on one node and on several.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Node, WITH_CHAT, guest},
    redis::{Server, WebsocketApp, until},
    redis_nodes::{PROMPT, patience},
};

const WITH_KEYS: &str = "[api]\nkeys = [\"first-key-of-tests\", \"second-key-of-tests\"]\n";

pub(crate) const WITH_HOSTILE: &str = r#"
[[plugins]]
name = "hostile"
path = "hostile.wasm"
events = ["hostile.*"]
call_cpu_max = "5s"
call_time_max = "20s"
"#;

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Value,
}

impl Answer {
    /// The code of its error; empty if it is none.
    pub(crate) fn error(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

pub(crate) async fn call(
    node: &Node,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: &str,
) -> Answer {
    let authorization = key.map_or(String::new(), |key| {
        format!("Authorization: Bearer {key}\r\n")
    });
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\n{authorization}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        node.address,
        body.len()
    );
    let mut stream = TcpStream::connect(node.address)
        .await
        .expect("the node listens");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the request is sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("the answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("a status"),
        head: head.to_ascii_lowercase(),
        body: serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {body:?} is not JSON")),
    }
}

/// A call with the right key.
pub(crate) async fn ask(node: &Node, method: &str, path: &str, body: &str) -> Answer {
    call(node, method, path, Some("first-key-of-tests"), body).await
}

async fn post(node: &Node, message: &Value) -> Answer {
    post_text(node, &message.to_string()).await
}

async fn post_text(node: &Node, message: &str) -> Answer {
    call(
        node,
        "POST",
        "/api/messages",
        Some("first-key-of-tests"),
        message,
    )
    .await
}

async fn find(node: &Node, user: &str) -> Value {
    let path = format!("/api/users/{user}");
    let answer = call(node, "GET", &path, Some("second-key-of-tests"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn disconnect(node: &Node, user: &str, body: &str) -> Answer {
    let path = format!("/api/users/{user}/disconnect");
    call(node, "POST", &path, Some("first-key-of-tests"), body).await
}

/// A node with the keys of these tests, and with the hostile plugin if `config` names it.
pub(crate) async fn node(config: &str) -> Node {
    let node = Node::start(&format!("{WITH_KEYS}{config}")).await;
    if config.contains("hostile.wasm") {
        let component = std::fs::read(guest("hostile"));
        let component = component.expect("`cargo xtask plugins --guests` makes it");
        node.replace("hostile.wasm", &component);
        let live = "wss_plugin_swaps_total{plugin=\"hostile\",outcome=\"live\"} ";
        node.until_metric(live, |live| live == 1.0).await;
    }
    node
}

#[tokio::test]
async fn the_api_is_closed_without_a_key_and_keys_change_while_the_server_runs() {
    let node = Node::start("").await;
    let closed = async |key| {
        for (method, path) in [
            ("GET", "/api/users/ann"),
            ("POST", "/api/messages"),
            ("POST", "/api/users/ann/disconnect"),
            ("GET", "/api/nothing"),
            ("DELETE", "/api/messages"),
        ] {
            let answer = call(&node, method, path, key, "").await;
            if answer.status == 429 {
                // After so many calls, this one is rate limited instead of getting the usual error.
                assert_eq!(answer.error(), "rate_limited", "{path}");
                continue;
            }
            assert_eq!(
                (answer.status, answer.error()),
                (401, "unauthorized"),
                "{path}"
            );
            assert!(
                answer.head.contains("www-authenticate: bearer"),
                "{}",
                answer.head
            );
        }
    };
    closed(None).await;
    closed(Some("")).await;
    closed(Some("first-key-of-tests")).await;
    node.replace("platform.toml", WITH_KEYS.as_bytes());
    for key in ["first-key-of-tests", "second-key-of-tests"] {
        until("the key is accepted", async || {
            let answer = call(&node, "GET", "/api/users/ann", Some(key), "").await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    closed(None).await;
    closed(Some("third-key-of-tests")).await;
    closed(Some("first-ke")).await;
    node.replace("platform.toml", b"[api]\nkeys = [\"third-key-of-tests\"]");
    until("the old key is rejected", async || {
        let answer = call(
            &node,
            "GET",
            "/api/users/ann",
            Some("first-key-of-tests"),
            "",
        )
        .await;
        [401, 429].contains(&answer.status).then_some(())
    })
    .await;
    let answer = call(
        &node,
        "GET",
        "/admin/plugins",
        Some("third-key-of-tests"),
        "",
    )
    .await;
    assert_eq!(answer.status, 401, "the API of operators is another one");
}

#[tokio::test]
async fn a_backends_message_reaches_a_user_a_room_or_everyone() {
    let node = node("").await;
    let (mut ann, mut bob) = (node.reachable("ann").await, node.reachable("bob").await);
    ann.send(r#"{"type":"join","room":"r","id":"1"}"#).await;
    assert_eq!(ann.json().await["type"], "ack");
    let text = r#"{"type":"news","payload":{ "n":12345678901234567890, "f":1.10 },"receiverId":"ann","senderId":"desk"}"#;
    let answer = post_text(&node, text).await;
    assert_eq!(
        (answer.status, &answer.body["status"]),
        (200, &json!("delivered"))
    );
    let got = ann.text().await;
    let start = r#"{"type":"news","payload":{ "n":12345678901234567890, "f":1.10 },"receiverID":"ann","senderId":"desk","timestamp":""#;
    assert!(got.starts_with(start), "{got}");
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["messageId"], answer.body["messageId"]);

    post(&node, &json!({"type": "news", "payload": 1, "room": "r"})).await;
    let got = ann.json().await;
    assert_eq!((&got["room"], &got["senderId"]), (&json!("r"), &json!("")));
    post(
        &node,
        &json!({"type": "news", "payload": 2, "everyone": true}),
    )
    .await;
    assert_eq!(ann.json().await["payload"], 2);
    assert_eq!(bob.json().await["payload"], 2, "he got nothing before");
    for to in [json!({"receiverId": "nobody"}), json!({"room": "nowhere"})] {
        let mut message = json!({"type": "news"});
        message
            .as_object_mut()
            .unwrap()
            .extend(to.as_object().unwrap().clone());
        let answer = post(&node, &message).await;
        assert_eq!(
            (answer.status, &answer.body["status"]),
            (200, &json!("offline"))
        );
    }
}

#[tokio::test]
async fn a_backends_message_goes_through_the_plugins_unless_it_is_raw() {
    let node = node(WITH_CHAT).await;
    let mut ann = node.reachable("ann").await;
    let message = |payload: &str, raw: bool| json!({"type": "chat_message", "payload": payload, "receiverId": "ann", "raw": raw});
    post(&node, &message("  hi  ", false)).await;
    assert_eq!(ann.json().await["payload"], "hi");
    let refused = post(&node, &message("  ", false)).await;
    assert_eq!((refused.status, refused.error()), (422, "blank"));
    assert_eq!(refused.body["error"]["plugin"], "chat");
    post(&node, &message("  ", true)).await;
    assert_eq!(ann.json().await["payload"], "  ");
    let me = json!({"type": "chat.me", "payload": "waves", "receiverId": "ann", "senderId": "bob"});
    let handled = post(&node, &me).await;
    assert_eq!(handled.body["status"], "handled");
    let got = ann.json().await;
    assert_eq!(
        (&got["senderId"], &got["payload"]["text"]),
        (&json!("bob"), &json!("* bob waves"))
    );
}

#[tokio::test]
async fn a_plugin_failure_is_reported_and_actions_that_need_a_connection_have_no_effect() {
    let node = node(WITH_HOSTILE).await;
    let failed = post(&node, &json!({"type": "hostile.panic"})).await;
    assert_eq!((failed.status, failed.error()), (502, "plugin_failed"));
    let error = &failed.body["error"];
    assert_eq!(
        (&error["plugin"], &error["retryable"]),
        (&json!("hostile"), &json!(true))
    );
    // The plugin replies to the sender.
    let handled = post(&node, &json!({"type": "hostile.nothing"})).await;
    assert_eq!(
        (handled.status, &handled.body["status"]),
        (200, &json!("handled"))
    );
    let gone = "wss_messages_dropped_total{reason=\"connection_gone\"} ";
    assert_eq!(node.metric(gone).await, Some(1.0));
}

#[tokio::test]
async fn a_malformed_message_is_refused_with_the_reason() {
    let node = node("[limits]\nframe_bytes_max = \"1KiB\"\nupgrade_timeout = \"200ms\"\n").await;
    for (body, code) in [
        ("", "invalid_frame"),
        (r#"{"type":"a","recieverId":"u"}"#, "invalid_frame"),
        (r#"{"type":"a b"}"#, "invalid_type"),
        (r#"{"type":"welcome","everyone":true}"#, "reserved_type"),
        (
            r#"{"type":"signalbox.request","receiverId":"u"}"#,
            "reserved_type",
        ),
        (
            r#"{"type":"a","receiverId":"u","room":"r"}"#,
            "invalid_receiver",
        ),
        (r#"{"type":"a"}"#, "no_receiver"),
    ] {
        let answer = post_text(&node, body).await;
        assert_eq!((answer.status, answer.error()), (400, code), "{body}");
    }
    let deep = format!(
        r#"{{"type":"a","payload":{}1{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    assert_eq!(post_text(&node, &deep).await.error(), "too_deep");
    let fits = json!({"type": "a", "receiverId": "u", "payload": "x".repeat(1024)});
    assert_eq!(post(&node, &fits).await.status, 200);
    let large = json!({"type": "a", "receiverId": "u", "payload": "x".repeat(1024 + 4096)});
    assert_eq!(post(&node, &large).await.status, 413);
    assert_eq!(
        call(
            &node,
            "GET",
            "/api/messages",
            Some("first-key-of-tests"),
            ""
        )
        .await
        .status,
        405
    );
    assert_eq!(
        call(&node, "GET", "/api/nothing", Some("first-key-of-tests"), "")
            .await
            .status,
        404
    );
    assert_eq!(
        call(&node, "GET", "/api", Some("first-key-of-tests"), "")
            .await
            .status,
        404
    );
    let long = "u".repeat(256);
    let path = format!("/api/users/{long}");
    assert_eq!(
        call(&node, "GET", &path, Some("first-key-of-tests"), "")
            .await
            .status,
        400
    );
    assert_eq!(
        call(
            &node,
            "GET",
            "/api/users/%FF",
            Some("first-key-of-tests"),
            ""
        )
        .await
        .status,
        400
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let node = node("[limits]\nupgrade_timeout = \"50ms\"\n").await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = "POST /api/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer first-key-of-tests\r\nContent-Length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_user_is_found_and_disconnected() {
    let node = node("").await;
    let nobody = json!({"online": false, "nodes": [], "connections": 0});
    assert_eq!(find(&node, "ann").await, nobody);
    let (mut phone, mut laptop) = (node.reachable("ann").await, node.reachable("ann").await);
    let mut bob = node.reachable("bob%2Fx").await;
    let found = find(&node, "ann").await;
    assert_eq!(
        (&found["online"], &found["connections"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(found["nodes"].as_array().map(Vec::len), Some(1));
    assert_eq!(find(&node, "bob%2Fx").await["connections"], 1);

    for wrong in [
        r#"{"code":1000}"#,
        r#"{"code":5000}"#,
        r#"{"kode":4000}"#,
        "[",
    ] {
        assert_eq!(disconnect(&node, "ann", wrong).await.status, 400, "{wrong}");
    }
    let done = disconnect(&node, "ann", "").await;
    assert_eq!((done.status, done.body), (200, json!({"connections": 2})));
    assert_eq!(phone.closed().await, 4501);
    assert_eq!(laptop.closed().await, 4501);
    assert_eq!(find(&node, "ann").await, nobody);
    let done = disconnect(&node, "bob%2Fx", r#"{"code":4777,"reason":"enough"}"#).await;
    assert_eq!(done.body, json!({"connections": 1}));
    assert_eq!(bob.closed().await, 4777);
    let done = disconnect(&node, "nobody", "{}").await;
    assert_eq!(done.body, json!({"connections": 0}));
}

fn on_redis(server: &Server, more: &str) -> String {
    format!(
        "[broker]\nkind = \"redis\"\n[redis]\nurl = \"{}\"\n{}{more}",
        server.url(),
        patience(more)
    )
}

/// Two nodes that are ready.
pub(crate) async fn two_nodes(server: &Server, config: &str) -> (Node, Node) {
    let config = on_redis(server, config);
    let (one, other) = (node(&config).await, node(&config).await);
    for node in [&one, &other] {
        until("the node is ready", async || {
            (node.get("/ready").await.0 == 200).then_some(())
        })
        .await;
    }
    (one, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_questions_and_disconnections_reach_users_on_all_nodes() {
    let server = Server::start().await;
    let (one, other) = two_nodes(&server, "").await;
    let mut ann = other.reachable("ann").await;
    let answer = post(
        &one,
        &json!({"type": "news", "payload": 1, "receiverId": "ann"}),
    )
    .await;
    assert_eq!(answer.body["status"], "delivered");
    assert_eq!(ann.json().await["payload"], 1);
    let mut ann_here = one.reachable("ann").await;
    let mut bob = other.reachable("bob").await;
    for node in [&one, &other] {
        let found = find(node, "ann").await;
        assert_eq!(
            (&found["online"], &found["connections"]),
            (&json!(true), &json!(2))
        );
        assert_eq!(found["nodes"].as_array().map(Vec::len), Some(2), "{found}");
        assert_eq!(found["unanswered"], Value::Null);
    }
    let done = disconnect(&one, "ann", r#"{"code":4000,"reason":"\"moved\""}"#).await;
    assert_eq!((done.status, done.body), (200, json!({"connections": 2})));
    assert_eq!(ann.closed().await, 4000);
    assert_eq!(ann_here.closed().await, 4000);
    assert_eq!(find(&one, "ann").await["online"], false);
    bob.send(r#"{"type":"heartbeat","id":"1"}"#).await;
    assert_eq!(bob.json().await["type"], "ack", "he stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_named() {
    let server = Server::start().await;
    let (one, _other) = two_nodes(&server, "").await;
    let mut ann = one.reachable("ann").await;
    server
        .command::<()>(&["SADD", "user_servers:ann", "ghost-1"])
        .await;
    server
        .command::<()>(&["SET", "server_alive:ghost-1", "1"])
        .await;
    let found = find(&one, "ann").await;
    assert_eq!(found["unanswered"], json!(["ghost-1"]));
    assert_eq!(
        (&found["online"], &found["connections"]),
        (&json!(true), &json!(1))
    );
    let done = disconnect(&one, "ann", "").await;
    assert_eq!((done.status, done.error()), (503, "unavailable"));
    assert_eq!(done.body["error"]["retryable"], true);
    assert!(done.body.to_string().contains("ghost-1"), "{}", done.body);
    assert_eq!(ann.closed().await, 4501, "who can be closed is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_websocket_app_is_named_and_its_clients_get_no_question() {
    let server = Server::start().await;
    let (one, _other) = two_nodes(&server, "compat = \"websocket-app\"\n").await;
    let old = WebsocketApp::start(&server.url()).await;
    let mut bob = old.connect("bob").await;
    let found = find(&one, "bob").await;
    let expected =
        json!({"online": true, "nodes": [old.id()], "connections": 0, "unanswered": [old.id()]});
    assert_eq!(found, expected);
    let done = disconnect(&one, "bob", "").await;
    let expected = json!({"connections": 0, "unanswered": [old.id()]});
    assert_eq!((done.status, done.body), (200, expected));
    let message = json!({"type": "news", "payload": 1, "receiverId": "bob"});
    assert_eq!(post(&one, &message).await.body["status"], "delivered");
    let got = bob.recv().await.expect("the server lives");
    assert!(got.contains("\"news\""), "the first that it gets: {got}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_call_that_needs_it_is_unavailable() {
    let mut server = Server::start().await;
    let (one, _other) = two_nodes(&server, PROMPT).await;
    let mut ann = one.reachable("ann").await;
    server.stop();
    let to = |user: &str| json!({"type": "news", "payload": 1, "receiverId": user});
    let answer = post(&one, &to("bob")).await;
    assert_eq!((answer.status, answer.error()), (503, "unavailable"));
    assert_eq!(answer.body["error"]["retryable"], true);
    let answer = post(&one, &to("ann")).await;
    assert_eq!(
        answer.body["status"], "delivered",
        "who is here needs no Redis"
    );
    assert_eq!(ann.json().await["payload"], 1);
    let path = "/api/users/ann";
    let answer = call(&one, "GET", path, Some("first-key-of-tests"), "").await;
    assert_eq!((answer.status, answer.error()), (503, "unavailable"));
    let answer = disconnect(&one, "ann", "").await;
    assert_eq!((answer.status, answer.error()), (503, "unavailable"));
    assert_eq!(
        ann.closed().await,
        4501,
        "who is here is disconnected all the same"
    );
    server.cont();
    until("the call works again", async || {
        (post(&one, &to("bob")).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_can_speak_as_a_node() {
    let server = Server::start().await;
    let (one, other) = two_nodes(&server, "").await;
    let (mut ann, mut eve) = (other.reachable("ann").await, one.reachable("eve").await);
    for name in ["signalbox.request", "signalbox.reply", "signalbox.probe"] {
        let act = json!({"disconnect": {"code": 4501, "reason": ""}});
        let message = json!({"type": name, "receiverId": "ann", "user": "ann", "from": "x",
            "act": act, "payload": {"user": "ann", "act": act}});
        eve.send(&message.to_string()).await;
        assert_eq!(
            eve.json().await["payload"]["code"],
            "reserved_type",
            "{name}"
        );
    }
    eve.send(r#"{"type":"x","payload":1,"receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_of_all_nodes_share_one_store() {
    let mut server = Server::start().await;
    let (one, other) = two_nodes(&server, &format!("command_timeout = \"2s\"{WITH_HOSTILE}")).await;
    let (mut ann, mut bob) = (one.reachable("ann").await, other.reachable("bob").await);
    for round in [1, 3] {
        ann.send(r#"{"type":"hostile.count"}"#).await;
        assert_eq!(ann.json().await["payload"], round);
        bob.send(r#"{"type":"hostile.count"}"#).await;
        assert_eq!(bob.json().await["payload"], round + 1);
    }
    server.stop();
    ann.send(r#"{"type":"hostile.count"}"#).await;
    assert_eq!(
        ann.json().await["payload"],
        "unavailable",
        "the plugin is told"
    );
    server.cont();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_too_late_costs_no_plugin_its_call() {
    let mut server = Server::start().await;
    // The Redis timeout would allow a minute; the call's deadline does not.
    let patient = WITH_HOSTILE.replace("\"20s\"", "\"5s\"");
    let (one, _other) = two_nodes(&server, &format!("command_timeout = \"60s\"{patient}")).await;
    let mut ann = one.reachable("ann").await;
    ann.send(r#"{"type":"hostile.count"}"#).await;
    assert_eq!(ann.json().await["payload"], 1);
    server.stop();
    ann.send(r#"{"type":"hostile.count"}"#).await;
    assert_eq!(ann.json().await["payload"], "unavailable");
}

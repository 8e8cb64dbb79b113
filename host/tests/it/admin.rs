//! The admin API: authentication, rate limits, and what it shows of the node.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    harness::{Endpoint, Node, WITH_CHAT},
    logged::{Logged, message},
    redis::{Server, until},
    redis_nodes::{patience, until_ready},
};

pub(crate) const KEY: &str = "an-admin-key-of-tests";

/// A configuration that enables the API with [`KEY`]; plugins can be appended.
pub(crate) const WITH_KEY: &str = "[admin]\nkey = \"an-admin-key-of-tests\"\n";

/// A response in JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Self {
            status: status.expect("a status"),
            head: head.to_ascii_lowercase(),
            body: serde_json::from_str(body).unwrap_or_else(|_| panic!("{body:?} is not JSON")),
        }
    }

    pub(crate) fn error(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

/// Like [`call`] with the key, again while there are more calls than the rate limit allows.
pub(crate) async fn call_once_allowed(
    node: &Endpoint,
    method: &str,
    path: &str,
    body: &[u8],
) -> Answer {
    until("the rate limit allows the call", async || {
        let answer = call(node, method, path, Some(KEY), body).await;
        (answer.status != 429).then_some(answer)
    })
    .await
}

/// The response to a call with any key, or with none.
pub(crate) async fn call(
    node: &Endpoint,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: &[u8],
) -> Answer {
    let authorization = key.map_or(String::new(), |key| {
        format!("Authorization: Bearer {key}\r\n")
    });
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\n{authorization}Content-Length: {}\r\nConnection: close\r\n\r\n",
        node.address,
        body.len()
    );
    let mut stream = node.tcp().await;
    let request = [head.as_bytes(), body].concat();
    stream
        .write_all(&request)
        .await
        .expect("the request is sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("the answer is text");
    Answer::read(&answer)
}

/// The response to a call with the key and without a body.
pub(crate) async fn admin(node: &Endpoint, method: &str, path: &str) -> Answer {
    call(node, method, path, Some(KEY), b"").await
}

#[tokio::test]
async fn every_call_wants_the_key_as_it_is_now_and_another_apis_key_is_none() {
    let with_keys = format!("{WITH_KEY}[api]\nkeys = [\"an-api-key-of-tests\"]\n");
    let server = Logged::start(&[], &with_keys).await;
    for (method, path) in [
        ("GET", "/admin"),
        ("GET", "/admin/"),
        ("GET", "/admin/nothing"),
        ("GET", "/admin/plugins"),
    ] {
        let answer = call(&server, method, path, Some("an-api-key-of-tests"), b"").await;
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
    assert_eq!(admin(&server, "GET", "/admin/plugins").await.status, 200);
    server.replace(
        "platform.toml",
        b"[admin]\nkey = \"another-key-of-tests\"\n",
    );
    server
        .until_line(|line| message(line) == "configuration applied")
        .await;
    assert_eq!(admin(&server, "GET", "/admin/plugins").await.status, 401);
    // After so many wrong keys the API may answer 429 for a while.
    until("the new key is accepted", async || {
        let answer = call(
            &server,
            "GET",
            "/admin/plugins",
            Some("another-key-of-tests"),
            b"",
        )
        .await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_address_that_guesses_keys_has_to_wait_and_calls_are_counted() {
    let node = Node::start(WITH_KEY).await;
    let mut guesses = 0;
    let limited = loop {
        let answer = call(&node, "GET", "/admin/plugins", Some("a-guess"), b"").await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 401);
        guesses += 1;
        assert!(guesses < 1_000, "guessing is not limited");
    };
    assert_eq!(limited.error(), "rate_limited");
    assert_eq!(limited.body["error"]["retryable"], true);
    let wait = limited
        .head
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "));
    let seconds: u64 = wait
        .and_then(|wait| wait.parse().ok())
        .expect("whole seconds");
    assert!(seconds >= 1);
    let counted = async |outcome: &str| {
        let line = format!("wss_admin_requests_total{{outcome=\"{outcome}\"}} ");
        node.metric(&line).await.expect("it is counted")
    };
    assert_eq!(counted("unauthorized").await, f64::from(guesses));
    assert!(counted("rate_limited").await >= 1.0);
    assert_eq!(counted("ok").await, 0.0);
}

#[tokio::test]
async fn unknown_calls_and_unknown_fields_are_refused() {
    let node = Node::start(&format!("{WITH_KEY}{WITH_CHAT}")).await;
    for (method, path, status, code) in [
        ("GET", "/admin", 404, "not_found"),
        ("GET", "/admin/nothing", 404, "not_found"),
        ("POST", "/admin/plugins", 405, "method_not_allowed"),
        ("DELETE", "/admin/plugins/chat", 405, "method_not_allowed"),
        ("GET", "/admin/plugins?verbose=1", 400, "invalid_query"),
        ("PUT", "/admin/plugins/chat?scope=all", 400, "invalid_query"),
        (
            "POST",
            "/admin/plugins/chat/reload?forec=true",
            400,
            "invalid_query",
        ),
        (
            "POST",
            "/admin/plugins/chat/reload?force=yes",
            400,
            "invalid_query",
        ),
        ("GET", "/admin/connections?limit=1001", 400, "invalid_query"),
        ("GET", "/admin/connections?user=", 400, "invalid_user"),
        ("GET", "/admin/plugins/%FF", 400, "invalid_path"),
        ("GET", "/admin/plugins/other", 404, "unknown_plugin"),
        ("PUT", "/admin/plugins/other", 404, "unknown_plugin"),
        ("POST", "/admin/plugins/other/reload", 404, "unknown_plugin"),
        (
            "POST",
            "/admin/plugins/other/rollback",
            404,
            "unknown_plugin",
        ),
    ] {
        let answer = admin(&node, method, path).await;
        assert_eq!(
            (answer.status, answer.error()),
            (status, code),
            "{method} {path}"
        );
        assert_eq!(answer.body["error"]["retryable"], false, "{method} {path}");
    }
}

#[tokio::test]
async fn the_configuration_in_force_is_shown_without_secrets() {
    let config = |listen: &str, burst: u32| {
        format!(
            "[admin]\nkey = \"{KEY}\"\n[api]\nkeys = [\"hush-hush-hush-hush\"]\n[server]\nlisten = \"{listen}\"\n\
             [limits]\nmessages_burst = {burst}\n[redis]\nurl = \"redis://hush:hush@127.0.0.1\"\n{WITH_CHAT}"
        )
    };
    let server = Logged::start(&[], &config("127.0.0.1:1", 7)).await;
    let shown = admin(&server, "GET", "/admin/config").await;
    assert_eq!(shown.status, 200);
    let text = shown.body.to_string();
    assert!(!text.contains("hush") && !text.contains(KEY), "{text}");
    let config_of = |answer: &Answer| answer.body["config"].clone();
    assert_eq!(config_of(&shown)["admin"]["key"], "****");
    assert_eq!(config_of(&shown)["limits"]["messages_burst"], 7);
    assert_eq!(config_of(&shown)["plugins"][0]["name"], "chat");
    assert_eq!(shown.body["needs_restart"], json!([]));
    let started_at = config_of(&shown)["server"]["node_id"].clone();

    let changed = config("127.0.0.1:1", 8) + "\n[plugin_cache]\ndir = \"elsewhere\"\n";
    server.replace("platform.toml", changed.as_bytes());
    server
        .until_line(|line| message(line) == "configuration applied")
        .await;
    let shown = admin(&server, "GET", "/admin/config").await;
    assert_eq!(config_of(&shown)["limits"]["messages_burst"], 8);
    assert_ne!(config_of(&shown)["plugin_cache"]["dir"], "elsewhere");
    assert_eq!(shown.body["needs_restart"], json!(["plugin_cache.dir"]));
    assert_eq!(config_of(&shown)["server"]["node_id"], started_at);
}

#[tokio::test]
async fn a_node_alone_is_the_only_one() {
    let node = Node::start(WITH_KEY).await;
    let _ann = node.reachable("ann").await;
    let nodes = admin(&node, "GET", "/admin/nodes").await.body;
    assert_eq!(nodes["nodes"], json!([nodes["this"]["id"]]));
    assert_eq!(nodes["this"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&nodes["this"]["connections"], &nodes["this"]["draining"]),
        (&json!(1), &json!(false))
    );
}

/// A node that uses this Redis.
pub(crate) async fn on_redis(redis: &Server) -> Node {
    let config = format!(
        "{WITH_KEY}[broker]\nkind = \"redis\"\n[redis]\nurl = \"{}\"\n{}",
        redis.url(),
        patience("")
    );
    let node = Node::start(&config).await;
    until_ready(&node).await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_a_cluster_know_each_other_and_forget_the_dead() {
    let redis = Server::start().await;
    let (one, other) = (on_redis(&redis).await, on_redis(&redis).await);
    // An entry of a server that was killed long ago.
    redis
        .command::<()>(&["SADD", "signalbox:nodes", "ghost-1"])
        .await;
    let ids = async |node: &Node| {
        let nodes = admin(node, "GET", "/admin/nodes").await.body;
        let ids = nodes["nodes"].as_array().expect("a list").clone();
        (ids, nodes["this"]["id"].clone())
    };
    let (nodes, one_id) = ids(&one).await;
    let (same, other_id) = ids(&other).await;
    assert_eq!(nodes, same);
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert!(nodes.contains(&one_id) && nodes.contains(&other_id));
    let members: Vec<String> = redis.command(&["SMEMBERS", "signalbox:nodes"]).await;
    assert_eq!(members.len(), 2, "the dead one is taken out: {members:?}");
    other.terminate();
    other.stopped().await;
    assert_eq!(ids(&one).await.0, std::slice::from_ref(&one_id));

    let mut redis = redis;
    redis.stop();
    let nodes = admin(&one, "GET", "/admin/nodes").await;
    assert_eq!(nodes.status, 200, "this node can be looked at all the same");
    assert_eq!(nodes.body["nodes"], json!([one_id]));
    assert!(nodes.body["unavailable"].is_string(), "{}", nodes.body);
    redis.cont();
}

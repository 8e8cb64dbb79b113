//! Changing plugins through the admin API: push, reload, rollback.

use serde_json::{Value, json};
use signalbox::plugin::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    admin::{Answer, KEY, WITH_KEY, admin, call, call_once_allowed},
    guests::{PATIENT, component, stamped, wat},
    harness::{Client, Endpoint, Node, WITH_CHAT},
    logged::{Logged, message},
    redis::until,
};

pub(crate) const STAMP: &str = "/admin/plugins/stamp";

/// The configuration of the stamp plugin, with the name that it marks messages with.
pub(crate) fn config(name: &str) -> String {
    format!(
        "{WITH_KEY}[[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n{PATIENT}\
         config = {{ name = \"{name}\" }}\n"
    )
}

async fn stamp_node() -> Node {
    Node::start_with(&[("stamp.wasm", &stamped("1"))], &config("a")).await
}

pub(crate) async fn push(node: &Endpoint, bytes: &[u8]) -> Answer {
    call(node, "PUT", STAMP, Some(KEY), bytes).await
}

pub(crate) async fn push_by_force(node: &Endpoint, bytes: &[u8]) -> Answer {
    call(
        node,
        "PUT",
        &format!("{STAMP}?force=true"),
        Some(KEY),
        bytes,
    )
    .await
}

pub(crate) async fn post(node: &Endpoint, what: &str) -> Answer {
    admin(node, "POST", &format!("{STAMP}/{what}")).await
}

pub(crate) async fn plugin(node: &Endpoint) -> Value {
    let answer = call_once_allowed(node, "GET", STAMP, b"").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// The mark that the plugin leaves on a message of this client.
pub(crate) async fn mark(client: &mut Client) -> String {
    client
        .send(r#"{"type":"x","payload":{},"receiverId":"ann"}"#)
        .await;
    let stamps = client.json().await["payload"]["stamps"].take();
    stamps[0].as_str().expect("a stamp").to_owned()
}

pub(crate) fn swaps(outcome: &str) -> String {
    format!("wss_plugin_swaps_total{{plugin=\"stamp\",outcome=\"{outcome}\"}} ")
}

pub(crate) fn states(plugin: &Value) -> Vec<&str> {
    let versions = plugin["versions"].as_array().expect("versions");
    let states = versions.iter().map(|version| version["state"].as_str());
    states.map(|state| state.expect("a state")).collect()
}

#[tokio::test]
async fn a_plugin_is_shown_with_the_statistics_of_its_version() {
    let files: [(&str, &[u8]); 1] = [("hostile.wasm", &component("hostile"))];
    let config = format!(
        "{WITH_KEY}{WITH_CHAT}[[plugins]]\nname = \"hostile\"\npath = \"hostile.wasm\"\n\
         events = [\"hostile.*\"]\ninstances = \"single\"\non_failure = \"pass\"\n{PATIENT}"
    );
    let node = Node::start_with(&files, &config).await;
    let mut ann = node.reachable("ann").await;
    for fault in ["done", "panic"] {
        ann.send(&format!(r#"{{"type":"hostile.{fault}","id":"1"}}"#))
            .await;
        ann.json().await;
    }
    let answer = admin(&node, "GET", "/admin/plugins").await;
    assert_eq!(answer.status, 200);
    let plugins = answer.body["plugins"].as_array().expect("a list");
    let names: Vec<_> = plugins
        .iter()
        .map(|plugin| plugin["name"].clone())
        .collect();
    assert_eq!(names, ["chat", "hostile"], "in the order of the chain");
    let hostile = &plugins[1];
    let same = admin(&node, "GET", "/admin/plugins/hostile").await.body;
    assert_eq!(same["name"], hostile["name"]);
    let expected = json!({
        "name": "hostile", "path": node.path("hostile.wasm"), "events": ["hostile.*"],
        "on_failure": "pass", "instances": "single", "held": false,
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&hostile[field], value, "{field}");
    }
    let version = &hostile["versions"][0];
    assert_eq!(version["version"], hostile["live"]);
    assert_eq!(
        (&version["state"], &version["trigger"], &version["until"]),
        (&json!("live"), &json!("start"), &Value::Null)
    );
    let number = |field: &str| version[field].as_f64().unwrap_or_else(|| panic!("{field}"));
    // The message was validated, transformed and handled, and the connection was screened too.
    assert!(number("calls") >= 5.0, "{version}");
    assert_eq!((number("traps"), number("failures")), (1.0, 1.0));
    assert_eq!(number("deadline_misses"), 0.0);
    assert!(number("p50_ms") > 0.0 && number("p50_ms") <= number("p99_ms"));
    assert!(
        number("instances") >= 1.0 && number("memory_bytes") >= 65_536.0,
        "{version}"
    );
    let error = &version["last_error"];
    assert_eq!(error["kind"], "trap");
    assert!(
        error["message"]
            .as_str()
            .expect("a text")
            .contains("unreachable"),
        "{error}"
    );
}

#[tokio::test]
async fn a_pushed_version_is_live_until_the_file_changes() {
    let node = stamp_node().await;
    let mut ann = node.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
    let before = plugin(&node).await["live"].clone();
    let answer = push(&node, &stamped("2")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = &answer.body;
    assert_eq!(
        (&body["outcome"], &body["plugin"]),
        (&json!("live"), &json!("stamp"))
    );
    assert_eq!(body["replaced"], before);
    assert_eq!(body["report"]["verdict"], "admitted");
    assert_eq!(body["report"]["bytes"], stamped("2").len());
    assert_eq!(
        mark(&mut ann).await,
        "a:STAMP-0000000002",
        "on the same connection"
    );
    let shown = plugin(&node).await;
    assert_eq!(
        (&shown["live"], &shown["held"]),
        (&body["version"], &json!(true))
    );
    assert_eq!(shown["versions"][0]["trigger"], "push");
    until("nobody uses the old version any more", async || {
        (states(&plugin(&node).await) == ["probation", "retired"]).then_some(())
    })
    .await;

    // Pushing the same bytes again changes nothing.
    let again = push(&node, &stamped("2")).await.body;
    assert_eq!(
        (&again["outcome"], &again["reason"]),
        (&json!("unchanged"), &json!("live"))
    );
    // A changed configuration makes another version of the pushed component, not of the file.
    node.replace("platform.toml", config("b").as_bytes());
    node.until_metric(&swaps("live"), |live| live == 3.0).await;
    assert_eq!(mark(&mut ann).await, "b:STAMP-0000000002");
    let reloaded = post(&node, "reload").await.body;
    assert_eq!(
        (&reloaded["outcome"], &reloaded["reason"]),
        (&json!("unchanged"), &json!("held"))
    );
    // A broken file changes nothing; a good one goes live.
    node.replace("stamp.wasm", b"broken");
    node.until_metric(&swaps("refused"), |refused| refused == 1.0)
        .await;
    assert_eq!(mark(&mut ann).await, "b:STAMP-0000000002");
    node.replace("stamp.wasm", &stamped("3"));
    node.until_metric(&swaps("live"), |live| live == 4.0).await;
    assert_eq!(mark(&mut ann).await, "b:STAMP-0000000003");
    assert_eq!(plugin(&node).await["held"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_was_replaced_drains_until_its_last_call_is_over() {
    let config = config("a").replace("name = \"a\" }", "name = \"a\", handles = [\"handled\"] }");
    let config = format!("{config}store_calls_max = 10_000\n");
    let node = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await;
    let mut waiting = node.reachable("ann").await;
    let mut other = node.reachable("bob").await;
    let handled = |payload: &str| format!(r#"{{"type":"handled","payload":{payload}}}"#);
    waiting
        .send(&handled(r#"{"open":"begun","wait":"go"}"#))
        .await;
    other.send(&handled(r#"{"wait":"begun"}"#)).await;
    other.json().await;
    assert_eq!(push(&node, &stamped("2")).await.status, 200);
    assert_eq!(states(&plugin(&node).await), ["probation", "draining"]);
    other.send(&handled(r#"{"open":"go"}"#)).await;
    let by = |answer: Value| answer["payload"]["stamps"].to_string();
    assert!(by(other.json().await).contains("STAMP-0000000002"));
    assert!(by(waiting.json().await).contains("STAMP-0000000001"));
    until("its last call ends", async || {
        (states(&plugin(&node).await) == ["probation", "retired"]).then_some(())
    })
    .await;
    assert_eq!(plugin(&node).await["versions"][1]["instances"], 0);
}

#[tokio::test]
async fn a_file_that_equals_the_pushed_version_is_followed_again() {
    let node = stamp_node().await;
    assert_eq!(push(&node, &stamped("2")).await.status, 200);
    node.replace("stamp.wasm", &stamped("2"));
    until("the file matches the live version", async || {
        (plugin(&node).await["held"] == false).then_some(())
    })
    .await;
    // Go back to the version that the push bypassed.
    node.replace("stamp.wasm", &stamped("1"));
    node.until_metric(&swaps("live"), |live| live == 3.0).await;
    let mut ann = node.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
}

#[tokio::test]
async fn a_rollback_restores_the_version_with_its_configuration() {
    let node = stamp_node().await;
    let mut ann = node.reachable("ann").await;
    let nothing = post(&node, "rollback").await;
    assert_eq!(
        (nothing.status, nothing.error()),
        (409, "no_earlier_version")
    );
    let second = push(&node, &stamped("2")).await.body["version"].clone();
    node.replace("platform.toml", config("b").as_bytes());
    node.until_metric(&swaps("live"), |live| live == 3.0).await;
    let third = push(&node, &stamped("3")).await.body["version"].clone();
    assert_eq!(mark(&mut ann).await, "b:STAMP-0000000003");

    let back = post(&node, "rollback").await.body;
    assert_eq!(
        (&back["outcome"], &back["replaced"]),
        (&json!("live"), &third)
    );
    assert_eq!(mark(&mut ann).await, "b:STAMP-0000000002");
    let shown = plugin(&node).await;
    assert_eq!(shown["versions"][0]["trigger"], "rollback");
    assert_eq!(shown["versions"][1]["version"], third);
    assert_eq!(states(&shown)[..2], ["probation", "rolled_back"]);
    // A version that was rolled back is skipped: the next rollback goes to the version before it.
    assert_eq!(post(&node, "rollback").await.body["version"], second);
    assert_eq!(
        mark(&mut ann).await,
        "a:STAMP-0000000002",
        "with the old configuration"
    );
    assert_eq!(post(&node, "rollback").await.status, 200);
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
    assert_eq!(post(&node, "rollback").await.error(), "no_earlier_version");
    // It can still be selected by its hash.
    let third = third.as_str().expect("a version");
    let to_third = format!("rollback?to={third}");
    assert_eq!(post(&node, &to_third).await.body["version"], third);
    assert_eq!(mark(&mut ann).await, "b:STAMP-0000000003");
    assert_eq!(post(&node, &to_third).await.body["reason"], "live");
    for unknown in ["0123456789ab", "0", ""] {
        let answer = post(&node, &format!("rollback?to={unknown}")).await;
        assert_eq!(
            (answer.status, answer.error()),
            (404, "unknown_version"),
            "{unknown}"
        );
    }
    // While the file is unchanged, only `force` brings it back.
    assert_eq!(post(&node, "reload").await.body["reason"], "held");
    assert_eq!(
        post(&node, "reload?force=true").await.body["outcome"],
        "live"
    );
    assert_eq!(mark(&mut ann).await, "b:STAMP-0000000001");
    assert_eq!(plugin(&node).await["held"], false);
    assert_eq!(post(&node, "reload").await.body["reason"], "live");
}

#[tokio::test]
async fn five_earlier_versions_are_kept_for_rollbacks() {
    let node = stamp_node().await;
    let first = plugin(&node).await["live"].clone();
    for number in 2..=7 {
        assert_eq!(push(&node, &stamped(&number.to_string())).await.status, 200);
    }
    let shown = plugin(&node).await;
    assert_eq!(shown["versions"].as_array().map(Vec::len), Some(6));
    let gone = format!("rollback?to={}", first.as_str().expect("a version"));
    assert_eq!(post(&node, &gone).await.error(), "unknown_version");
}

#[tokio::test]
async fn a_bad_component_is_refused_in_words_and_changes_nothing() {
    let node = stamp_node().await;
    let live = plugin(&node).await["live"].clone();
    let good = stamped("1");
    let bad: [(Vec<u8>, &str, &str); 6] = [
        (Vec::new(), "compile", "the file is empty"),
        (
            good[..good.len() / 2].to_vec(),
            "compile",
            "damaged or half written",
        ),
        (wat("(module)"), "compile", "build for wasm32-wasip2"),
        (wat("(component)"), "contract", "exports no interface"),
        (stamped("init-panic"), "start", "panic"),
        (
            stamped("test-fails"),
            "self-test",
            "does not pass its self-test",
        ),
    ];
    for (bytes, step, words) in bad {
        let answer = push(&node, &bytes).await;
        assert_eq!((answer.status, answer.error()), (422, "refused"), "{words}");
        let report = &answer.body["report"];
        assert_eq!(
            (&report["step"], &report["live"]),
            (&json!(step), &live),
            "{report}"
        );
        assert!(
            report["reason"].as_str().expect("a reason").contains(words),
            "{report}"
        );
        let message = answer.body["error"]["message"].as_str().expect("a message");
        assert!(
            message.contains(words) && message.contains("stays live"),
            "{message}"
        );
    }
    let shown = plugin(&node).await;
    assert_eq!((&shown["live"], &shown["held"]), (&live, &json!(false)));
    assert_eq!(states(&shown), ["live", "failed"]);
    let failed = &shown["versions"][1];
    assert_eq!(
        (&failed["trigger"], &failed["last_error"]["kind"]),
        (&json!("push"), &json!("self-test"))
    );
    let mut ann = node.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
    // A plugin that handles types of another plugin is refused in the last step.
    let config = format!(
        "{}[[plugins]]\nname = \"other\"\npath = \"other.wasm\"\nevents = [\"*\"]\n{PATIENT}",
        config("a")
    );
    let claims =
        |config: &str| config.replace("name = \"a\"", "name = \"a\", handles = [\"mine\"]");
    let files: [(&str, &[u8]); 1] = [("stamp.wasm", &stamped("1"))];
    let other = format!("{}config = {{ handles = [\"mine\"] }}\n", claims(&config));
    let node = Node::start_with(&files, &other).await;
    let answer = call(
        &node,
        "PUT",
        "/admin/plugins/other",
        Some(KEY),
        &stamped("4"),
    )
    .await;
    assert_eq!(
        (answer.status, &answer.body["report"]["step"]),
        (422, &json!("conflict"))
    );
    assert_eq!(answer.body["report"]["live"], Value::Null);
}

/// The head of a push that sends `Expect: 100-continue` before its body.
fn head(plugin: &str, more: &str) -> String {
    format!(
        "PUT /admin/plugins/{plugin} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{more}\r\n"
    )
}

/// Begins to push `bytes` bytes. When this returns, the server is waiting for the body.
async fn begin(node: &Endpoint, plugin: &str, bytes: usize) -> tokio::net::TcpStream {
    let mut stream = node.tcp().await;
    let more = format!("Content-Length: {bytes}\r\nExpect: 100-continue\r\n");
    stream
        .write_all(head(plugin, &more).as_bytes())
        .await
        .expect("the head is sent");
    // Read all of it: closing a socket with unread data resets it, and the data that was sent may be lost.
    let mut answer = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn rest(mut stream: tokio::net::TcpStream) -> Answer {
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("the answer is text");
    Answer::read(&answer)
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused_before_it_is_read_or_as_soon_as_it_is() {
    let small = "[limits]\nplugin_file_bytes_max = \"1KiB\"\n";
    let node = Node::start(&format!("{small}{WITH_KEY}{WITH_CHAT}")).await;
    let too_large = |answer: &Answer| {
        assert_eq!((answer.status, answer.error()), (413, "too_large"));
        let message = answer.body["error"]["message"].to_string();
        assert!(
            message.contains("limits.plugin_file_bytes_max"),
            "{message}"
        );
    };
    // Announced in the head: the server does not wait for a single byte.
    let mut stream = node.tcp().await;
    let announced = head(
        "chat",
        "Content-Length: 1000000000\r\nConnection: close\r\n",
    );
    stream.write_all(announced.as_bytes()).await.unwrap();
    too_large(&rest(stream).await);
    // Not announced: the server notices while it reads the body.
    let mut stream = node.tcp().await;
    let chunked = head(
        "chat",
        "Transfer-Encoding: chunked\r\nConnection: close\r\n",
    );
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let chunk = format!("401\r\n{}\r\n", "x".repeat(0x401));
    stream.write_all(chunk.as_bytes()).await.unwrap();
    too_large(&rest(stream).await);
}

#[tokio::test]
async fn a_component_that_does_not_come_is_not_waited_for() {
    let config = format!("{WITH_KEY}upload_timeout = \"50ms\"\n{WITH_CHAT}");
    let node = Node::start(&config).await;
    let mut stream = node.tcp().await;
    let never = head("chat", "Content-Length: 10\r\nConnection: close\r\n");
    stream.write_all(never.as_bytes()).await.unwrap();
    let answer = rest(stream).await;
    assert_eq!((answer.status, answer.error()), (408, "too_slow"));
    assert!(
        answer.body["error"]["message"]
            .to_string()
            .contains("admin.upload_timeout")
    );
}

#[tokio::test]
async fn more_than_two_pushes_at_a_time_have_to_wait() {
    let node = stamp_node().await;
    let first = begin(&node, "stamp", 10).await;
    let _second = begin(&node, "stamp", 10).await;
    let third = push(&node, b"").await;
    assert_eq!((third.status, third.error()), (503, "busy"));
    assert_eq!(third.body["error"]["retryable"], true);
    assert!(third.head.contains("retry-after: 1"), "{}", third.head);
    // A client that disconnects frees its slot.
    drop(first);
    until("there is room again", async || {
        (push(&node, b"").await.status == 422).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_does_not_break_its_swap_off() {
    let config = format!(
        "{}[[plugins]]\nname = \"slow\"\npath = \"slow.wasm\"\nevents = [\"slow.*\"]\non_failure = \"pass\"\ninit_time_max = \"3s\"\n\
         config = {{ init = \"loop\" }}\n",
        config("a")
    );
    let node = Logged::start(&[("stamp.wasm", &stamped("1"))], &config).await;
    // Once a component is compiled, its upload is complete and it is waiting for its turn.
    let compiled = async |bytes: &[u8]| {
        let version = Sha256::of(bytes).to_string();
        let is = |line: &Value| message(line) == "compiled" && line["version"] == version[..12];
        node.until_line(is).await
    };
    // A component that takes seconds to admit; the next one queues behind it.
    let slow = component("hostile");
    let mut before = begin(&node, "slow", slow.len()).await;
    before.write_all(&slow).await.unwrap();
    compiled(&slow).await;
    let bytes = stamped("2");
    let mut leaving = begin(&node, "stamp", bytes.len()).await;
    leaving.write_all(&bytes).await.unwrap();
    compiled(&bytes).await;
    drop(leaving);
    node.until_metric(&swaps("live"), |live| live == 2.0).await;
    let mut ann = node.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000002");
}

#[tokio::test]
async fn each_change_is_logged_with_its_author_and_without_keys() {
    let server = Logged::start(&[("stamp.wasm", &stamped("1"))], &config("a")).await;
    let mut ann = server.reachable("ann").await;
    push(&server, &stamped("2")).await;
    push(&server, b"nonsense").await;
    post(&server, "rollback").await;
    post(&server, "reload?force=true").await;
    call(&server, "PUT", "/admin/plugins/other", Some(KEY), b"x").await;
    let listed = admin(&server, "GET", "/admin/connections?user=ann")
        .await
        .body;
    let id = listed["connections"][0]["id"]
        .as_str()
        .expect("a connection")
        .to_owned();
    admin(&server, "DELETE", &format!("/admin/connections/{id}")).await;
    assert_eq!(ann.closed_with_reason().await.0, 4501);
    let lines = server
        .until_lines(6, |line| line["target"] == "signalbox::audit")
        .await;
    let audited: Vec<_> = lines
        .iter()
        .map(|line| {
            let field = |name: &str| line[name].as_str().expect("a text").to_owned();
            assert!(field("address").starts_with("127.0.0.1:"), "{line}");
            assert_eq!(field("key").len(), 8, "a fingerprint: {line}");
            (field("action"), field("object"), field("outcome"))
        })
        .collect();
    let expected = [
        ("push", "stamp", "live"),
        ("push", "stamp", "refused"),
        ("roll back", "stamp", "live"),
        ("reload by force", "stamp", "live"),
        ("push", "other", "unknown_plugin"),
        ("disconnect", &id, "disconnected"),
    ];
    let expected =
        expected.map(|(action, object, outcome)| (action.into(), object.into(), outcome.into()));
    assert_eq!(audited, expected);
    assert_eq!(message(&lines[0]), "push \"stamp\": live");
    assert!(
        server
            .lines(|line| line.to_string().contains(KEY))
            .is_empty()
    );
}

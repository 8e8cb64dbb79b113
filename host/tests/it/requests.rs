//! Requests: messages that a plugin answers with data.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    admin_plugins::{config, push, swaps},
    api,
    concierge::{ask, concierge, expect, node, nodes, on_both},
    described::Description,
    guests::{component, concierge_version, stamp_number},
    harness::{Client, Node, folder},
    process::run,
    redis::Server,
};

async fn post(node: &Node, path: &str, message: &Value) -> api::Answer {
    api::ask(node, "POST", path, &message.to_string()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_the_data_in_its_ack_after_the_actions_were_carried_out() {
    on_both(&concierge("concierge", "{}"), async |node| {
        let mut ann = node.reachable("ann").await;
        let mut bob = node.reachable("bob").await;
        let said = json!({"send": {"type": "said", "to": "sender"}});
        let actions = json!(["deliver", said]);
        let payload = json!({"raw": "{ \"x\": 1.10, \"ä\": [] }", "actions": actions});
        let request = json!({"type": "ask.it", "id": "q", "payload": payload, "receiverId": "bob"});
        ann.send(&request.to_string()).await;
        expect(&mut ann, "said").await;
        let ack = ann.text().await;
        let data = r#","status":"delivered","data":{ "x": 1.10, "ä": [] }}}"#;
        assert!(ack.ends_with(data), "byte for byte: {ack}");
        assert_eq!(expect(&mut bob, "ask.it").await, payload);
        let nothing = ask(&mut ann, json!(null)).await;
        assert_eq!(
            (&nothing["status"], nothing.get("data")),
            (&json!("handled"), Some(&Value::Null))
        );
    })
    .await;
}

#[tokio::test]
async fn without_an_id_the_data_goes_nowhere_and_the_actions_happen() {
    let node = node(&concierge("concierge", "{}")).await;
    let mut ann = node.reachable("ann").await;
    let said = json!({"send": {"type": "said", "to": "sender"}});
    let request = json!({"type": "ask.it", "payload": {"data": 1, "actions": [said]}});
    ann.send(&request.to_string()).await;
    expect(&mut ann, "said").await;
    ann.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_gets_the_data_in_the_answer_of_the_api() {
    on_both(&concierge("concierge", "{}"), async |node| {
        let document = api::ask(node, "GET", "/api/openapi.json", "").await;
        let mut described = Description::new(document.body);
        let request = json!({"type": "ask.it", "payload": {"data": {"n": [1, 2]}}});
        let answer = post(node, "/api/messages", &request).await;
        described.check("POST", "/api/messages", 200, &answer.body);
        assert_eq!(
            (answer.status, &answer.body["status"], &answer.body["data"]),
            (200, &json!("handled"), &json!({"n": [1, 2]}))
        );
        let mut to_two = request.clone();
        to_two["receiverIds"] = json!(["ann", "bob"]);
        let event = json!({"type": "x", "receiverId": "ann"});
        let batch = json!({"messages": [request, event, to_two]});
        let mut answer = post(node, "/api/batch", &batch).await;
        described.check("POST", "/api/batch", 200, &answer.body);
        let results = answer.body["results"].take();
        assert_eq!(results[0]["data"], json!({"n": [1, 2]}));
        assert_eq!(results[1].get("data"), None, "no request: {results}");
        let each = &results[2]["results"];
        for (index, user) in ["ann", "bob"].into_iter().enumerate() {
            assert_eq!(
                (&each[index]["receiverId"], &each[index]["data"]),
                (&json!(user), &json!({"n": [1, 2]}))
            );
        }
        let mut raw = json!({"type": "ask.it", "receiverId": "ann", "raw": true});
        let answer = post(node, "/api/messages", &raw).await;
        assert_eq!(answer.body.get("data"), None, "it passed the plugin by");
        raw["raw"] = json!(false);
        let answer = post(node, "/api/messages", &raw).await;
        assert_eq!(answer.body.get("data"), Some(&Value::Null));
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_refused_is_an_error_with_the_code_of_the_plugin() {
    let node = node(&concierge("concierge", "{}")).await;
    let mut ann = node.reachable("ann").await;
    let request = json!({"type": "ask.it", "id": "q", "payload": {"refuse": "not_now"}});
    ann.send(&request.to_string()).await;
    let error = expect(&mut ann, "error").await;
    assert_eq!(
        (
            &error["id"],
            &error["code"],
            &error["plugin"],
            &error["retryable"]
        ),
        (
            &json!("q"),
            &json!("not_now"),
            &json!("concierge"),
            &json!(false)
        )
    );
    let answer = post(&node, "/api/messages", &request_of(&request)).await;
    assert_eq!((answer.status, answer.error()), (422, "not_now"));
}

/// The message of a client, as a backend sends it.
fn request_of(message: &Value) -> Value {
    json!({"type": message["type"], "payload": message["payload"]})
}

#[tokio::test]
async fn data_that_is_not_json_and_a_panic_fail_the_call_and_none_of_its_actions_happen() {
    let config = concierge("concierge", "{}");
    let strict = node(&config).await;
    let lenient = node(&config.replace("config =", "on_failure = \"pass\"\nconfig =")).await;
    let said = json!({"send": {"type": "said", "to": "sender"}});
    let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
    for payload in [
        json!({"raw": "{not json", "actions": [said]}),
        json!({"raw": "\"\\ud83d\"", "actions": [said]}),
        json!({"raw": deep, "actions": [said]}),
        json!({"data": 1, "actions": [said, {"join": ""}]}),
        json!({"trap": true}),
    ] {
        let request = json!({"type": "ask.it", "id": "q", "payload": payload, "receiverId": "ann"});
        let mut ann = strict.reachable("ann").await;
        ann.send(&request.to_string()).await;
        let error = expect(&mut ann, "error").await;
        assert_eq!(
            (&error["code"], &error["retryable"]),
            (&json!("plugin_failed"), &json!(true))
        );
        ann.expect_silence().await;
        let answer = post(&strict, "/api/messages", &request_of(&request)).await;
        assert_eq!((answer.status, answer.error()), (502, "plugin_failed"));
        // As without the plugin: the message goes to its receiver.
        let mut ann = lenient.reachable("ann").await;
        ann.send(&request.to_string()).await;
        assert_eq!(expect(&mut ann, "ask.it").await, payload);
        let ack = expect(&mut ann, "ack").await;
        assert_eq!(
            (&ack["status"], ack.get("data")),
            (&json!("delivered"), None)
        );
        ann.close().await;
    }
    let failures = "wss_plugin_failures_total{plugin=\"concierge\",kind=\"output\"} ";
    assert_eq!(strict.metric(failures).await, Some(8.0));
}

#[tokio::test]
async fn a_type_has_one_handler_or_one_responder() {
    let files = [("concierge.wasm", &*component("concierge"))];
    let dir = folder(&files);
    let check = async |plugins: &[(&str, &str)]| {
        let plugins = plugins.iter().map(|(name, config)| concierge(name, config));
        std::fs::write(
            dir.path().join("platform.toml"),
            plugins.collect::<String>(),
        )
        .unwrap();
        let finished = run(dir.path(), &["check"], &[]).await;
        (finished.code, finished.stderr)
    };
    let (code, error) =
        check(&[("a", "{ answers = [\"x\", \"y.*\"], handles = [\"y.z\"] }")]).await;
    assert_eq!(code, Some(0), "the closest pattern wins: {error}");
    for pattern in ["x", "y.*"] {
        let both = format!("{{ answers = [\"{pattern}\"], handles = [\"{pattern}\"] }}");
        let (code, error) = check(&[("a", &both)]).await;
        let expected = format!("plugins.a: `{pattern}` is in `event-types` and in `request-types`");
        assert!(code == Some(2) && error.contains(&expected), "{error}");
    }
    for one in [
        "{ answers = [\"x\"] }",
        "{ answers = [], handles = [\"x\"] }",
    ] {
        let (code, error) = check(&[("a", one), ("b", "{ answers = [\"x\"] }")]).await;
        let expected = "plugins.b: `x` is handled by plugin `a` already";
        assert!(code == Some(2) && error.contains(expected), "{error}");
    }
    for (answers, expected) in [
        ("[\"join\"]", "request-types: `join` is built in"),
        ("[\"a b\"]", "request-types: `a b` is not an event type"),
    ] {
        let (code, error) = check(&[("a", &format!("{{ answers = {answers} }}"))]).await;
        assert!(code == Some(2) && error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn the_closest_claim_decides_whether_a_message_is_a_request() {
    let config = "{ answers = [\"ask.*\", \"do.it.now\"], handles = [\"ask.event\", \"do.*\"] }";
    let node = node(&concierge("concierge", config)).await;
    let mut ann = node.reachable("ann").await;
    for (event_type, is_request) in [
        ("ask.it", true),
        ("ask.event", false),
        ("do.it", false),
        ("do.it.now", true),
    ] {
        let message = json!({"type": event_type, "id": "q", "payload": {"data": 7}});
        ann.send(&message.to_string()).await;
        if !is_request {
            expect(&mut ann, "handled").await;
        }
        let ack = expect(&mut ann, "ack").await;
        let data = is_request.then_some(&json!(7)).cloned();
        assert_eq!(ack.get("data"), data.as_ref(), "{event_type}");
    }
}

#[tokio::test]
async fn clients_may_send_the_types_that_a_live_plugin_answers() {
    let config = format!("[events]\nclient = []\n{}", concierge("concierge", "{}"));
    let node = node(&config).await;
    let mut ann = node.reachable("ann").await;
    assert_eq!(ask(&mut ann, json!({"data": 1})).await["data"], 1);
    ann.send(r#"{"type":"other","id":"q","payload":1}"#).await;
    assert_eq!(ann.error_code().await, "forbidden_type");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_on_the_node_of_its_sender_and_acts_on_all() {
    let server = Server::start().await;
    let nodes: [Node; 2] = nodes(&server, &concierge("concierge", "{}")).await;
    let mut bob = nodes[1].reachable("bob").await;
    for (index, node) in nodes.iter().enumerate() {
        let mut ann = node.reachable("ann").await;
        let said = json!({"send": {"type": "said", "to": {"user": "bob"}, "payload": index}});
        let request = json!({"calls": ["context"], "actions": [said]});
        let data = ask(&mut ann, request).await["data"].take();
        let name = data[0]["node"].as_str().expect("a node");
        assert!(name.starts_with(&format!("n{index}")), "{name}");
        assert_eq!(data[0]["client"]["user"], "ann");
        assert_eq!(expect(&mut bob, "said").await, index);
        ann.close().await;
    }
}

/// Asks for the version until it is `last`, and notes each that answers in `seen`.
async fn ask_until(mut client: Client, last: u64, seen: &AtomicU64) {
    let mut version = 1;
    while version < last {
        let ack = ask(&mut client, json!({"version": true})).await;
        let stamp = ack["data"].as_str().unwrap_or_else(|| panic!("{ack}"));
        let answered = stamp_number(stamp);
        assert!(answered >= version, "{answered} came after {version}");
        version = answered;
        seen.fetch_max(version, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_an_error_while_the_plugin_that_answers_is_swapped() {
    const VERSIONS: u64 = 6;
    let unlimited = "[limits]\nmessages_per_second = 0\n";
    let node = node(&format!("{unlimited}{}", concierge("concierge", "{}"))).await;
    node.replace("concierge.wasm", &concierge_version("1"));
    let live = "wss_plugin_swaps_total{plugin=\"concierge\",outcome=\"live\"} ";
    node.until_metric(live, |count| count == 2.0).await;
    let seen = AtomicU64::new(1);
    let mut clients = Vec::new();
    for number in 0..8 {
        let client = node.reachable(&format!("user{number}")).await;
        clients.push(ask_until(client, VERSIONS, &seen));
    }
    let swaps = async {
        for version in 2..=VERSIONS {
            node.replace("concierge.wasm", &concierge_version(&version.to_string()));
            let count = (version + 1) as f64;
            node.until_metric(live, |live| live == count).await;
        }
    };
    tokio::join!(join_all(clients), swaps);
    assert_eq!(seen.load(Ordering::Relaxed), VERSIONS);
    let failures = "wss_plugin_failures_total{plugin=\"concierge\",kind=\"trap\"} ";
    assert_eq!(node.metric(failures).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_at_requests_or_at_members_is_rolled_back() {
    let probation = "[limits]\nmessages_per_second = 0\n[plugin_probation]\ntime = \"1h\"\n";
    let config = config("a").replace("{ name = \"a\" }", "{}");
    let files = [("stamp.wasm", &*concierge_version("1"))];
    let node = Node::start_with(&files, &format!("{probation}{config}")).await;
    let users = ["u1", "u2", "u3", "u4"].map(|user| node.reachable(user));
    let mut users = join_all(users).await;
    let rolled_back = swaps("rolled_back");
    for (round, version) in ["2", "bad0000003"].into_iter().enumerate() {
        assert_eq!(push(&node, &concierge_version(version)).await.status, 200);
        for client in &mut users {
            for _ in 0..5 {
                let frame = match version {
                    "bad0000003" => json!({"type": "join", "room": "r"}),
                    _ => json!({"type": "ask.it", "payload": {"trap_on": "STAMP-0000000002"}}),
                };
                client.send(&frame.to_string()).await;
                client.send(r#"{"type":"leave","room":"r","id":"l"}"#).await;
                while client.json().await["type"] != "ack" {}
            }
        }
        let count = (round + 1) as f64;
        node.until_metric(&rolled_back, |times| times == count)
            .await;
        let ack = ask(&mut users[0], json!({"version": true})).await;
        assert_eq!(ack["data"], "STAMP-0000000001");
    }
}

//! The spans that an OpenTelemetry collector receives for messages. Tracing must not change what receivers get.

use std::collections::HashSet;

use axum::http::StatusCode;
use futures_util::StreamExt;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use crate::{
    collector::{Collector, Span},
    harness::{Node, WITH_CHAT},
    redis::{Server, until},
    redis_nodes::{Nodes, Outcome, Peer, config, until_ready},
};

/// The fields of a delivery with an `id`, and no others.
const FIELDS: [&str; 6] = [
    "messageId",
    "payload",
    "receiverID",
    "senderId",
    "timestamp",
    "type",
];

fn fields(delivery: &Value) -> Vec<&str> {
    let fields = delivery.as_object().expect("an object").keys();
    let mut fields: Vec<&str> = fields.map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

/// The one span of this name.
fn one<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no {name}: {spans:?}"));
    assert!(found.next().is_none(), "{name} twice: {spans:?}");
    span
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_one_trace_through_plugins_and_nodes() {
    let (redis, collector) = (Server::start().await, Collector::start().await);
    let more = format!("{}{WITH_CHAT}", collector.config());
    let cluster = Nodes::start(2, &redis.url(), &more).await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    let message = json!({"type": "chat_message", "payload": "secret", "receiverId": "bob"});
    assert_eq!(ann.ask_json(message).await, Outcome::Delivered);
    assert_eq!(fields(&bob.delivery().await), FIELDS);

    collector.until_spans(1, "message").await;
    collector.until_spans(1, "deliver").await;
    let spans = collector.spans();
    let message = one(&spans, "message");
    let (publish, deliver) = (one(&spans, "publish"), one(&spans, "deliver"));
    assert_eq!(
        (message.parent.as_str(), message.kind),
        ("", SpanKind::Server)
    );
    assert_eq!(message.attributes["signalbox.status"], "delivered");
    let call = one(&spans, "screen chat");
    assert_eq!((&call.parent, call.kind), (&message.id, SpanKind::Internal));
    assert_eq!(call.attributes["signalbox.plugin.version"].len(), 12);
    assert_eq!(
        (&publish.parent, publish.kind),
        (&message.id, SpanKind::Producer)
    );
    assert_eq!(
        (&deliver.parent, deliver.kind),
        (&publish.id, SpanKind::Consumer)
    );
    assert_eq!(deliver.attributes["signalbox.connections"], "1");
    let traces: HashSet<&String> = spans.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 1, "{spans:?}");
    // Each span names the node that it comes from, and `publish` also names the destination.
    let node = |span: &Span| span.resource["service.instance.id"].clone();
    assert!(node(message).starts_with("n0-") && node(deliver).starts_with("n1-"));
    assert_eq!(
        publish.attributes["messaging.destination.name"],
        node(deliver)
    );
    assert_eq!(message.resource["service.name"], "signalbox");
    let text = format!("{spans:?}");
    for private in ["secret", "ann", "bob"] {
        assert!(!text.contains(&format!("\"{private}\"")), "{text}");
    }
}

#[tokio::test]
async fn a_span_has_the_error() {
    let collector = Collector::start().await;
    let node = Node::start(&format!("{}{WITH_CHAT}", collector.config())).await;
    let mut ann = node.client("ann").await;
    // The chat plugin requires a text.
    ann.send(r#"{"type":"chat_message","payload":"","receiverId":"bob"}"#)
        .await;
    let rejection = ann.error_code().await;
    ann.send(r#"{"type":"unknown","payload":1}"#).await;
    assert_eq!(ann.error_code().await, "no_receiver");
    let messages = collector.until_spans(2, "message").await;
    let spans = collector.spans();
    let call = one(&spans, "screen chat");
    assert_eq!(call.attributes["signalbox.rejection"], rejection);
    assert_eq!(messages[0].attributes["signalbox.rejection"], rejection);
    assert!(!messages[0].failed, "the plugin did what it is for");
    assert!(messages[1].failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_and_without_tracing_deliver_to_each_other() {
    let (redis, collector) = (Server::start().await, Collector::start().await);
    let tracing = Node::start(&config("tracing", &redis.url(), &collector.config())).await;
    let other = Node::start(&config("other", &redis.url(), "")).await;
    until_ready(&tracing).await;
    until_ready(&other).await;
    let mut ann = Peer::connect(&tracing, "ann").await;
    let mut bob = Peer::connect(&other, "bob").await;
    for n in 0..20 {
        assert_eq!(ann.ask("bob", n).await, Outcome::Delivered);
        assert_eq!(bob.ask("ann", n).await, Outcome::Delivered);
        for delivery in [bob.delivery().await, ann.delivery().await] {
            assert_eq!(delivery["payload"], n);
            assert_eq!(fields(&delivery), FIELDS);
        }
    }
    // An entry as an older node without tracing leaves it: its lease says only that it is alive.
    redis
        .command::<()>(&["SADD", "user_servers:old", "old-1"])
        .await;
    redis
        .command::<()>(&["SET", "server_alive:old-1", "1"])
        .await;
    let client = ::redis::Client::open(redis.url()).expect("an address");
    let mut subscriber = client.get_async_pubsub().await.expect("a connection");
    subscriber
        .subscribe("server:old-1")
        .await
        .expect("it subscribes");
    assert_eq!(ann.ask("old", 7).await, Outcome::Delivered);
    let published: String = subscriber
        .on_message()
        .next()
        .await
        .expect("a message")
        .get_payload()
        .expect("a text");
    let published: Value = serde_json::from_str(&published).expect("JSON alone");
    assert_eq!(fields(&published), FIELDS);
    // All of this was traced, up to the last node that supports it.
    assert_eq!(collector.until_spans(21, "publish").await.len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_websocket_app_in_the_cluster_only_messages_are_published() {
    let (redis, collector) = (Server::start().await, Collector::start().await);
    let more = format!("compat = \"websocket-app\"\n{}", collector.config());
    let cluster = Nodes::start(2, &redis.url(), &more).await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    assert_eq!(ann.ask("bob", 1).await, Outcome::Delivered);
    assert_eq!(fields(&bob.delivery().await), FIELDS);
    // Deliveries from the other node arrive in order.
    assert_eq!(bob.ask("nobody", 2).await, Outcome::Offline);
    let of_bob = |spans: &[Span]| {
        let is_his = |span: &Span| span.resource["service.instance.id"].starts_with("n1-");
        spans.iter().filter(|span| is_his(span)).count()
    };
    until("bob's spans are exported", async || {
        (of_bob(&collector.spans()) > 0).then_some(())
    })
    .await;
    let names: Vec<String> = collector
        .spans()
        .into_iter()
        .map(|span| span.name)
        .collect();
    assert!(!names.iter().any(|name| name == "deliver"), "{names:?}");
}

#[tokio::test]
async fn a_backends_trace_continues_in_the_server() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    let collector = Collector::start().await;
    // Sampling picks nothing; the backend asks for the trace.
    let config = collector.config().replace("1.0", "0.0");
    let node = Node::start(&format!(
        "{config}[api]\nkeys = [\"an-api-key-of-tests\"]\n"
    ))
    .await;
    let _ann = node.reachable("ann").await;
    let body = r#"{"type":"news","payload":1,"receiverId":"ann"}"#;
    for traced in ["00", "01"] {
        let head = format!(
            "POST /api/messages HTTP/1.1\r\nAuthorization: Bearer an-api-key-of-tests\r\nTraceparent: 00-{TRACE}-{SPAN}-{traced}\r\n\
             Content-Length: {}",
            body.len()
        );
        assert_eq!(node.http_with_body(&head, body).await.status, 200);
    }
    let posts = collector.until_spans(1, "post").await;
    let [post] = posts.as_slice() else {
        panic!("the one that the backend has recorded: {posts:?}");
    };
    assert_eq!((post.trace.as_str(), post.parent.as_str()), (TRACE, SPAN));
    assert_eq!(post.attributes["signalbox.status"], "delivered");
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_spans_and_no_message() {
    let collector = Collector::start().await;
    collector.refuse(Some(StatusCode::BAD_REQUEST));
    let node = Node::start(&collector.config()).await;
    let mut ann = node.client("ann").await;
    let say = r#"{"type":"test","payload":1,"receiverId":"ann"}"#;
    ann.send(say).await;
    assert_eq!(ann.json().await["payload"], 1);
    let dropped = "wss_trace_spans_dropped_total{reason=\"export\"} ";
    node.until_metric(dropped, |dropped| dropped == 1.0).await;
    collector.refuse(None);
    ann.send(say).await;
    assert_eq!(ann.json().await["payload"], 1);
    collector.until_spans(1, "message").await;
    node.until_metric("wss_trace_spans_exported_total ", |exported| {
        exported == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_stopping_server_exports_its_last_spans() {
    let collector = Collector::start().await;
    let node = Node::start(&collector.config()).await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"test","payload":1,"receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], 1);
    ann.close().await;
    node.terminate();
    node.stopped().await;
    one(&collector.spans(), "message");
}

//! The stand-in for the Go server.

use std::time::Duration;

use redis::FromRedisValue;
use serde_json::{Value, json};
use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};

use crate::{
    harness::PATIENCE,
    redis::{Cluster, Server, WebsocketApp, until},
};

#[tokio::test]
async fn servers_of_the_old_kind_exchange_messages_both_ways() {
    let redis = Server::start().await;
    exchange(&redis.url()).await;
}

#[tokio::test]
async fn servers_of_the_old_kind_exchange_messages_through_a_cluster() {
    let cluster = Cluster::start().await;
    exchange(&cluster.urls()).await;
}

async fn exchange(urls: &str) {
    let [a, b] = [
        WebsocketApp::start(urls).await,
        WebsocketApp::start(urls).await,
    ];
    assert_ne!(a.id(), b.id());
    let mut ann = a.connect("ann").await;
    let mut bob = b.connect("bob").await;
    assert!(
        a.send("ann", "bob", "chat_message", &json!({"text": "hi"}))
            .await
    );
    let to_bob = message(&mut bob).await;
    assert!(
        to_bob["timestamp"]
            .as_str()
            .is_some_and(|time| humantime::parse_rfc3339(time).is_ok()),
        "{to_bob}"
    );
    let expected = json!({
        "type": "chat_message",
        "payload": {"text": "hi"},
        "receiverID": "bob",
        "senderId": "ann",
        "timestamp": to_bob["timestamp"],
    });
    assert_eq!(to_bob, expected);
    assert!(b.send("bob", "ann", "notification", &json!(1)).await);
    assert_eq!(message(&mut ann).await["type"], "notification");
    assert!(a.send("ann", "ann", "note", &json!(null)).await);
    assert_eq!(message(&mut ann).await["senderId"], "ann");
    assert!(!a.send("ann", "nobody", "note", &json!(null)).await);
    b.disconnect("bob").await;
    assert!(!a.send("ann", "bob", "note", &json!(null)).await);
    assert!(bob.try_recv().is_err());
}

#[tokio::test]
async fn a_server_of_the_old_kind_writes_the_keys_of_its_users() {
    let redis = Server::start().await;
    let app = WebsocketApp::start_refreshing_every(Duration::from_millis(10), &redis.url()).await;
    let _first = app.connect("ann").await;
    let _second = app.connect("ann").await;
    let online = format!("user_online:ann:{}", app.id());
    let servers = || ask::<Vec<String>>(&redis, &["SMEMBERS", "user_servers:ann"]);
    assert_eq!(servers().await, [app.id()]);
    assert_eq!(ask::<String>(&redis, &["GET", &online]).await, "1");
    let cut = ask::<bool>(&redis, &["EXPIRE", &online, "20"]).await;
    assert!(cut);
    until("the user's TTL is refreshed", async || {
        let ttl: i64 = redis.command(&["TTL", &online]).await;
        assert!((1..=60).contains(&ttl), "{ttl}");
        (ttl > 50).then_some(())
    })
    .await;
    // As in the original, closing one of two connections is enough to lose the route.
    app.disconnect("ann").await;
    assert_eq!(servers().await, [""; 0]);
    assert!(!ask::<bool>(&redis, &["EXISTS", &online]).await);
}

async fn ask<T: FromRedisValue>(redis: &Server, words: &[&str]) -> T {
    redis.command(words).await
}

#[tokio::test]
async fn a_websocket_app_server_subscribes_again_and_gets_broadcasts() {
    let mut redis = Server::start().await;
    let app = WebsocketApp::start(&redis.url()).await;
    let mut ann = app.connect("ann").await;
    let mut bob = app.connect("bob").await;
    redis.restart_empty().await;
    until("it has subscribed again", async || {
        let heard: usize = redis
            .command(&["PUBLISH", "broadcast", r#"{"type":"news"}"#])
            .await;
        (heard == 1).then_some(())
    })
    .await;
    assert_eq!(message(&mut ann).await["type"], "news");
    assert_eq!(message(&mut bob).await["type"], "news");
    redis
        .command::<()>(&[
            "PUBLISH",
            "broadcast",
            r#"{"type":"word","receiverID":"bob"}"#,
        ])
        .await;
    assert_eq!(message(&mut bob).await["type"], "word");
    assert!(ann.try_recv().is_err());
    // Only a new connection restores the route that was lost in the crash.
    assert!(!app.send("bob", "ann", "note", &json!(null)).await);
    assert!(redis.output().contains("Ready to accept connections"));
}

async fn message(receiver: &mut UnboundedReceiver<String>) -> Value {
    let text = timeout(PATIENCE, receiver.recv())
        .await
        .expect("a message arrives")
        .expect("the connection is there");
    serde_json::from_str(&text).expect("a message is JSON")
}

//! `POST /api/users/online`, on one node and on several.

use serde_json::{Value, json};

use crate::{
    api::{Answer, ask, node, two_nodes},
    harness::Node,
    redis::{Server, WebsocketApp},
    redis_nodes::PROMPT,
};

async fn online(node: &Node, users: &Value) -> Answer {
    let body = json!({"users": users}).to_string();
    ask(node, "POST", "/api/users/online", &body).await
}

#[tokio::test]
async fn the_users_that_are_online_come_in_the_order_of_the_request() {
    let node = node("").await;
    let _clients = (
        node.reachable("ann").await,
        node.reachable("ann").await,
        node.reachable("b%2F%C3%BC").await,
    );
    let answer = online(&node, &json!(["nobody", "b/ü", "ann", "Ann", "b/ü"])).await;
    assert_eq!(
        (answer.status, answer.body),
        (200, json!({"online": ["b/ü", "ann"]}))
    );
    let answer = online(&node, &json!(["nobody"])).await;
    assert_eq!(answer.body, json!({"online": []}));
}

#[tokio::test]
async fn a_list_must_have_1_to_1000_users() {
    let node = node("").await;
    let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    for (users, code) in [
        (json!([]), "invalid_body"),
        (json!(names(1_001)), "invalid_body"),
        (json!(null), "invalid_body"),
        (json!("ann"), "invalid_body"),
        (json!(["ann", 5]), "invalid_body"),
        (json!(["ann", ""]), "invalid_user"),
        (json!(["ü".repeat(128)]), "invalid_user"),
    ] {
        let answer = online(&node, &users).await;
        assert_eq!((answer.status, answer.error()), (400, code), "{users}");
    }
    for body in ["", "[]", "{}", r#"{"users":["ann"],"more":1}"#] {
        let answer = ask(&node, "POST", "/api/users/online", body).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_body"));
    }
    let long: Vec<String> = (0..1_000).map(|n| format!("{n:0>255}")).collect();
    assert_eq!(online(&node, &json!(long)).await.status, 200);
    let large = online(&node, &json!(["x".repeat(600 << 10)])).await;
    assert_eq!((large.status, large.error()), (413, "too_large"));
}

#[tokio::test]
async fn a_user_may_be_called_online() {
    let node = node("").await;
    let mut client = node.reachable("online").await;
    let found = ask(&node, "GET", "/api/users/online", "").await;
    assert_eq!((found.status, &found.body["connections"]), (200, &json!(1)));
    let wrong = ask(&node, "PUT", "/api/users/online", "").await;
    assert_eq!(wrong.status, 405);
    let closed = ask(&node, "POST", "/api/users/online/disconnect", "").await;
    assert_eq!(
        (closed.status, closed.body),
        (200, json!({"connections": 1}))
    );
    assert_eq!(client.closed().await, 4501);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_all_nodes_are_found() {
    let server = Server::start().await;
    let (one, other) = two_nodes(&server, "").await;
    let _clients = (one.reachable("u1").await, other.reachable("u999").await);
    // A route that a dead server has left behind.
    server
        .command::<()>(&["SADD", "user_servers:u5", "ghost-1"])
        .await;
    let users: Vec<String> = (0..1_000).map(|n| format!("u{n}")).collect();
    for node in [&one, &other] {
        let answer = online(node, &json!(users)).await;
        assert_eq!(answer.body, json!({"online": ["u1", "u999"]}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_websocket_app_are_found() {
    let server = Server::start().await;
    let (one, _other) = two_nodes(&server, "compat = \"websocket-app\"\n").await;
    let old = WebsocketApp::start(&server.url()).await;
    let _bob = old.connect("bob").await;
    let _ann = one.reachable("ann").await;
    let answer = online(&one, &json!(["eve", "bob", "ann"])).await;
    assert_eq!(answer.body, json!({"online": ["bob", "ann"]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_no_user_is_reported_offline() {
    let mut server = Server::start().await;
    let (one, _other) = two_nodes(&server, PROMPT).await;
    let _ann = one.reachable("ann").await;
    server.stop();
    let answer = online(&one, &json!(["ann", "bob"])).await;
    assert_eq!((answer.status, answer.error()), (503, "unavailable"));
    assert_eq!(answer.body["error"]["retryable"], true);
    let answer = online(&one, &json!(["ann"])).await;
    assert_eq!(
        answer.body,
        json!({"online": ["ann"]}),
        "who is here needs no Redis"
    );
    server.cont();
}

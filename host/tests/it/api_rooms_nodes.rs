//! The calls about rooms on several nodes.

use serde_json::{Value, json};

use crate::{
    api::{ask, two_nodes},
    api_rooms::{RULES, change, changed, expect, find, say, v1},
    redis::{Server, WebsocketApp},
    redis_nodes::PROMPT,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_joins_and_leaves_on_all_nodes_and_members_are_counted_on_all() {
    let server = Server::start().await;
    let (one, other) = two_nodes(&server, RULES).await;
    let (mut here, mut there) = (v1(&one, "ann").await, v1(&other, "ann").await);
    let mut bob = v1(&other, "bob").await;
    for (n, node) in [&one, &other].into_iter().enumerate() {
        let n = n as u64;
        for room in ["closed:1", "chat:1"] {
            let done = changed(node, "PUT", room, "ann").await;
            assert_eq!(done, json!({"connections": 2}));
            changed(node, "PUT", room, "bob").await;
            // From any node, as soon as the answer is there.
            assert_eq!(say(&one, room, 2 * n).await, "delivered");
            assert_eq!(say(&other, room, 2 * n + 1).await, "delivered");
            for client in [&mut here, &mut there, &mut bob] {
                expect(client, "joined", room).await;
                let mut got = [client.json().await, client.json().await];
                got.sort_by_key(|message| message["payload"].as_u64());
                let got = got.map(|message| message["payload"].clone());
                assert_eq!(got, [json!(2 * n), json!(2 * n + 1)]);
            }
            for asked in [&one, &other] {
                let found = find(asked, room).await;
                assert_eq!(found["connections"], 3, "{found}");
                assert_eq!(found["nodes"].as_array().map(Vec::len), Some(2), "{found}");
                assert_eq!(found["unanswered"], Value::Null);
            }
            let done = changed(node, "DELETE", room, "ann").await;
            assert_eq!(done, json!({"connections": 2}));
            assert_eq!(find(&one, room).await["connections"], 1);
            changed(node, "DELETE", room, "bob").await;
            for client in [&mut here, &mut there, &mut bob] {
                expect(client, "left", room).await;
            }
        }
    }
    let history = find(&one, "chat:1").await["history"].clone();
    assert_eq!(history["offset"], 4);
    assert_eq!(find(&other, "chat:1").await["history"], history);
    let path = "/api/rooms/chat:1/history?limit=3";
    let read = ask(&one, "GET", path, "").await.body;
    assert_eq!(read, ask(&other, "GET", path, "").await.body);
    assert_eq!(
        (&read["hasOlder"], &read["epoch"]),
        (&json!(true), &history["epoch"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_silent_or_too_old_to_be_asked_are_named() {
    let server = Server::start().await;
    let (one, _other) = two_nodes(&server, RULES).await;
    let mut ann = v1(&one, "ann").await;
    changed(&one, "PUT", "closed:1", "ann").await;
    expect(&mut ann, "joined", "closed:1").await;
    // An old node listens; it must not get a question that it does not know.
    let client = ::redis::Client::open(server.url()).expect("an address");
    let mut old = client.get_async_pubsub().await.expect("a connection");
    old.subscribe("server:old-1").await.expect("it listens");
    for (ghost, lease) in [("old-1", "4"), ("silent-1", "5")] {
        for route in ["room_servers:closed:1", "user_servers:ann"] {
            server.command::<()>(&["SADD", route, ghost]).await;
        }
        let lease_key = format!("server_alive:{ghost}");
        server.command::<()>(&["SET", &lease_key, lease]).await;
        let found = find(&one, "closed:1").await;
        assert_eq!(found["connections"], 1, "{found}");
        let mut unanswered = found["unanswered"].as_array().expect("a list").clone();
        unanswered.sort_by_key(Value::to_string);
        assert_eq!(unanswered.last(), Some(&json!(ghost)));
        let done = change(&one, "DELETE", "closed:1", "ann").await;
        assert_eq!((done.status, done.error()), (503, "unavailable"));
        assert_eq!(done.body["error"]["retryable"], true);
        assert!(
            done.body.to_string().contains("1 connections left"),
            "{}",
            done.body
        );
        expect(&mut ann, "left", "closed:1").await;
        let done = change(&one, "PUT", "closed:1", "ann").await;
        assert_eq!(done.status, 503);
        expect(&mut ann, "joined", "closed:1").await;
    }
    server
        .command::<()>(&["PUBLISH", "server:old-1", "the end"])
        .await;
    let first = futures_util::StreamExt::next(&mut old.on_message()).await;
    let text: String = first.expect("a text").get_payload().expect("text");
    assert_eq!(text, "the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_websocket_app_have_no_rooms_and_are_named() {
    let server = Server::start().await;
    let config = format!("compat = \"websocket-app\"\n{RULES}");
    let (one, _other) = two_nodes(&server, &config).await;
    let old = WebsocketApp::start(&server.url()).await;
    let mut bob = old.connect("bob").await;
    let done = changed(&one, "PUT", "closed:1", "bob").await;
    assert_eq!(done, json!({"connections": 0, "unanswered": [old.id()]}));
    let message = json!({"type": "news", "payload": 1, "receiverId": "bob"});
    ask(&one, "POST", "/api/messages", &message.to_string()).await;
    let got = bob.recv().await.expect("the server lives");
    assert!(got.contains("\"news\""), "the first that it gets: {got}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_calls_about_rooms_are_unavailable() {
    let mut server = Server::start().await;
    let (one, _other) = two_nodes(&server, &format!("{PROMPT}{RULES}")).await;
    let _ann = v1(&one, "ann").await;
    server.stop();
    for (method, path) in [
        ("GET", "/api/rooms/closed:1"),
        ("GET", "/api/rooms/chat:1"),
        ("GET", "/api/rooms/chat:1/history"),
        ("PUT", "/api/rooms/closed:1/members/ann"),
        ("DELETE", "/api/rooms/closed:1/members/ann"),
    ] {
        let answer = ask(&one, method, path, "").await;
        assert_eq!(
            (answer.status, answer.error()),
            (503, "unavailable"),
            "{method} {path}"
        );
    }
    server.cont();
}

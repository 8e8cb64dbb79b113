//! Checks the OpenAPI description of the API for backends against real responses.

use serde_json::json;

use crate::{
    api::{ask, call, node},
    api_rooms::RULES,
    described::Description,
    harness::WITH_CHAT,
    once,
};

/// Revoking takes tokens.
const TOKENS: &str = "[auth]\nmode = \"jwt\"\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n";

#[tokio::test]
async fn every_answer_is_as_the_description_says() {
    let presence = "[[rooms]]\nmatch = \"seen:*\"\npresence = true\n";
    let node = node(&format!("{RULES}{presence}{WITH_CHAT}")).await;
    let document = ask(&node, "GET", "/api/openapi.json", "").await;
    assert_eq!(document.status, 200);
    let mut described = Description::new(document.body.clone());
    let _ann = node.reachable("ann").await;
    let (messages, batch) = ("/api/messages", "/api/batch");
    let rejected = json!({"type": "chat_message", "payload": " ", "receiverId": "ann"});
    let to_all = json!({"type": "chat_message", "payload": " ", "receiverIds": ["ann", "bob"]});
    let (user, room) = ("/api/users/{user}", "/api/rooms/{room}");
    let online = "/api/users/online";
    let disconnect = "/api/users/{user}/disconnect";
    let history = "/api/rooms/{room}/history";
    let revoke = "/api/tokens/revoke";
    let users = "/api/rooms/{room}/members";
    let members = "/api/rooms/{room}/members/{user}";
    let post = "POST";
    for (method, path, called, body) in [
        (
            post,
            messages,
            messages,
            json!({"type": "x", "receiverId": "ann"}),
        ),
        (
            post,
            messages,
            messages,
            json!({"type": "x", "receiverIds": ["ann", "bob"]}),
        ),
        (
            post,
            messages,
            messages,
            json!({"type": "x", "rooms": ["chat:1", "r"]}),
        ),
        (post, messages, messages, rejected.clone()),
        (post, messages, messages, to_all.clone()),
        (post, messages, messages, json!({"type": "x"})),
        (
            post,
            messages,
            messages,
            json!({"type": "x", "payload": "x".repeat(70_000)}),
        ),
        (
            post,
            batch,
            batch,
            json!({"messages": [5, rejected.clone(), to_all, {"type": "x", "room": "chat:1"}]}),
        ),
        (post, batch, batch, json!({"messages": []})),
        (post, online, online, json!({"users": ["ann", "bob"]})),
        (post, online, online, json!({"users": [""]})),
        ("GET", user, "/api/users/ann", json!(null)),
        ("GET", user, "/api/users/bob", json!(null)),
        ("GET", user, "/api/users/%FF", json!(null)),
        ("PUT", members, "/api/rooms/chat:1/members/ann", json!(null)),
        ("PUT", members, "/api/rooms/%FF/members/ann", json!(null)),
        ("GET", users, "/api/rooms/seen:1/members", json!(null)),
        ("GET", users, "/api/rooms/chat:1/members", json!(null)),
        ("GET", room, "/api/rooms/chat:1", json!(null)),
        ("GET", room, "/api/rooms/r", json!(null)),
        ("GET", history, "/api/rooms/chat:1/history", json!(null)),
        ("GET", history, "/api/rooms/r/history", json!(null)),
        (
            "GET",
            history,
            "/api/rooms/chat:1/history?limit=0",
            json!(null),
        ),
        (
            "DELETE",
            members,
            "/api/rooms/chat:1/members/ann",
            json!(null),
        ),
        ("GET", "/api/openapi.json", "/api/openapi.json", json!(null)),
        (
            post,
            disconnect,
            "/api/users/ann/disconnect",
            json!({"code": 1}),
        ),
        (
            post,
            disconnect,
            "/api/users/ann/disconnect",
            json!({"code": 4000, "block": "1s"}),
        ),
        (post, revoke, revoke, json!({"user": "ann"})),
    ] {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = ask(&node, method, called, &body).await;
        described.check(method, path, answer.status, &answer.body);
    }
    let plain = json!({"type": "x", "receiverId": "ann"});
    let list = json!({"type": "x", "receiverIds": ["ann", "bob"]});
    let many = json!({"messages": [plain, list]});
    for (path, name, body) in [
        (messages, "a", &plain),
        (messages, "a", &plain),
        (messages, "b", &list),
        (messages, "b", &list),
        (messages, "c", &rejected),
        (messages, "c", &rejected),
        (messages, "a", &list),
        (messages, "", &plain),
        (batch, "d", &many),
        (batch, "d", &many),
        (batch, "a", &many),
    ] {
        let answer = once::post(&node, path, once::KEY, name, body).await;
        let answered = serde_json::from_str(&answer.body).expect("JSON");
        described.check(post, path, answer.status, &answered);
    }
    let with_tokens = crate::api::node(TOKENS).await;
    for body in [json!({"user": "ann"}), json!({"jti": 7})] {
        let answer = ask(&with_tokens, post, revoke, &body.to_string()).await;
        described.check(post, revoke, answer.status, &answer.body);
    }
    loop {
        let guess = call(&node, "GET", "/api/users/ann", Some("a-guess"), "").await;
        described.check("GET", user, guess.status, &guess.body);
        if guess.status == 429 {
            break;
        }
    }
    assert_eq!(described.unseen(), Vec::<String>::new());
}

#[tokio::test]
async fn every_call_that_is_described_needs_a_key() {
    let node = node("").await;
    let document = ask(&node, "GET", "/api/openapi.json", "").await.body;
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 11);
    for (path, item) in paths {
        let methods = item.as_object().expect("methods").keys();
        for method in methods.filter(|name| *name != "parameters") {
            let answer = call(&node, &method.to_uppercase(), path, None, "").await;
            assert_eq!(
                (answer.status, answer.error()),
                (401, "unauthorized"),
                "{method} {path}"
            );
        }
    }
    let unknown = ask(&node, "GET", "/api/nothing", "").await;
    let message = unknown.body["error"]["message"]
        .as_str()
        .expect("a message");
    assert!(message.contains("/api/openapi.json"), "{message}");
}

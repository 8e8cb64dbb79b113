//! Tokens of open connections: their replacement, their announced end, and the grace after it.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, component},
    harness::{Client, Endpoint, Node},
    live_auth::{configure, until_status},
};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const JWT: &str =
    "[auth]\nmode = \"jwt\"\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n";
const V1: (&str, &str) = ("Sec-WebSocket-Protocol", "signalbox.v1");

pub(crate) fn seconds_from_now(seconds: f64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs_f64() + seconds
}

pub(crate) fn sign(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("signed")
}

/// A token of ann that expires in so many seconds.
pub(crate) fn token(seconds: f64) -> String {
    sign(&json!({"sub": "ann", "exp": seconds_from_now(seconds)}))
}

/// A client of websocket-app.
pub(crate) async fn connect(node: &Endpoint, token: &str) -> Client {
    let upgraded = node.upgrade(&format!("/ws?token={token}"), &[]).await;
    let (mut client, _) = upgraded.expect("a good token");
    client.expect_silence().await;
    client
}

/// A client of `signalbox.v1`, and the payload of its `welcome`.
pub(crate) async fn connect_v1(node: &Endpoint, token: &str) -> (Client, Value) {
    let upgraded = node.upgrade(&format!("/ws?token={token}"), &[V1]).await;
    let (mut client, _) = upgraded.expect("a good token");
    let welcome = client.json().await;
    assert_eq!(welcome["type"], "welcome");
    (client, welcome["payload"].clone())
}

/// Sends a `token` frame, and returns the answer.
pub(crate) async fn replace(client: &mut Client, payload: &Value) -> Value {
    let frame = json!({"type": "token", "id": "t", "payload": payload});
    client.send(&frame.to_string()).await;
    let answer = client.json().await;
    assert_eq!(answer["payload"]["id"], "t", "{answer}");
    answer
}

async fn assert_replaced(client: &mut Client, token: &str) {
    let answer = replace(client, &json!(token)).await;
    assert_eq!(answer["payload"]["status"], "handled", "{answer}");
}

fn milliseconds(value: &Value) -> u64 {
    value.as_u64().expect("a number of milliseconds")
}

/// The time until the token expires, from the next frame.
async fn announced(client: &mut Client) -> u64 {
    let frame = client.json().await;
    assert_eq!(frame["type"], "token_expiring", "{frame}");
    milliseconds(&frame["payload"]["expiresInMs"])
}

#[tokio::test]
async fn a_connection_with_a_new_token_survives_the_end_of_the_old_one() {
    let node = Node::start(&format!("{JWT}grace = \"0s\"\n")).await;
    let old = token(8.0);
    let mut ann = connect(&node, &old).await;
    let mut other = connect(&node, &old).await;
    assert_replaced(&mut ann, &token(3600.0)).await;
    assert_eq!(other.closed().await, 4500);
    ann.expect_silence().await;
    // A token that ends earlier counts too.
    assert_replaced(&mut ann, &token(4.0)).await;
    let (code, reason) = ann.closed_with_reason().await;
    assert_eq!((code, reason.as_str()), (4500, "the token has expired"));
    node.until_metric("wss_unexpected_disconnects_total ", |ends| ends == 0.0)
        .await;
}

#[tokio::test]
async fn within_the_grace_everything_works_and_a_new_token_rescues_the_connection() {
    let auth = format!("jwt_secret = \"{SECRET}\"\n");
    let node = Node::start(&format!("{JWT}grace = \"1h\"\n")).await;
    let old = token(8.0);
    let mut ann = connect(&node, &old).await;
    let mut late = connect(&node, &old).await;
    until_status(&node, &old, 401).await;
    ann.send(r#"{"type":"x","payload":1,"receiverId":"ann"}"#)
        .await;
    for client in [&mut ann, &mut late] {
        assert_eq!(client.json().await["payload"], 1);
    }
    assert_replaced(&mut ann, &token(3600.0)).await;
    configure(&node, &format!("{auth}grace = \"0s\"\n"));
    assert_eq!(late.closed().await, 4500);
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_client_of_v1_is_informed_once_for_each_token_before_it_expires() {
    let node = Node::start(JWT).await;
    let (mut ann, welcome) = connect_v1(&node, &token(20.0)).await;
    let left = milliseconds(&welcome["tokenExpiresInMs"]);
    assert!((1..=20_000).contains(&left), "{welcome}");
    assert!(announced(&mut ann).await <= left);
    ann.expect_silence().await;
    assert_replaced(&mut ann, &token(3600.0)).await;
    ann.expect_silence().await;
    // The notice comes 30 s before the end.
    assert_replaced(&mut ann, &token(33.0)).await;
    assert!(announced(&mut ann).await <= 30_000);
    assert_replaced(&mut ann, &token(10.0)).await;
    assert!(announced(&mut ann).await <= 10_000);
    ann.expect_silence().await;
    // A client of websocket-app knows no such frame.
    connect(&node, &token(20.0)).await.expect_silence().await;
}

#[tokio::test]
async fn without_tokens_nothing_expires_and_the_type_is_reserved() {
    let node = Node::start("").await;
    let upgraded = node.upgrade("/ws?userId=ann", &[V1]).await;
    let (mut ann, _) = upgraded.expect("no token is needed");
    let welcome = ann.json().await;
    assert_eq!(welcome["payload"].get("tokenExpiresInMs"), None);
    let answer = replace(&mut ann, &json!(token(60.0))).await;
    assert_eq!(answer["payload"]["code"], "reserved_type");
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_token_that_is_not_accepted_changes_nothing_and_is_not_repeated() {
    let node = Node::start(&format!("{JWT}jwt_issuer = \"i\"\n")).await;
    let claims =
        |sub: &str, exp: f64| json!({"sub": sub, "exp": seconds_from_now(exp), "iss": "i"});
    let mut ann = connect(&node, &sign(&claims("ann", 3600.0))).await;
    let mut foreign = claims("ann", 3600.0);
    foreign["iss"] = json!("j");
    let good = sign(&claims("ann", 3600.0));
    let (unsigned, _) = good.rsplit_once('.').expect("it has a signature");
    for (payload, code) in [
        (json!(sign(&claims("bob", 3600.0))), "invalid_token"),
        (json!(sign(&claims("ann", -1.0))), "invalid_token"),
        (json!(sign(&foreign)), "invalid_token"),
        (json!(format!("{unsigned}.AAAA")), "invalid_token"),
        (json!("garbage"), "invalid_token"),
        (json!(""), "invalid_token"),
        (json!("a.".repeat(30_000)), "invalid_token"),
        (json!("x".repeat(60_000)), "invalid_token"),
        (json!(null), "invalid_payload"),
        (json!(7), "invalid_payload"),
        (json!([good]), "invalid_payload"),
        (json!({"token": good}), "invalid_payload"),
    ] {
        let answer = replace(&mut ann, &payload).await;
        assert_eq!(answer["type"], "error", "{payload}");
        let error = &answer["payload"];
        assert_eq!(
            (&error["code"], &error["retryable"]),
            (&json!(code), &json!(false)),
            "{payload}"
        );
        let text = error["message"].as_str().expect("a message");
        if let Some(token) = payload.as_str().filter(|token| token.len() > 10) {
            assert!(!text.contains(token) && text.len() < 200, "{text}");
        }
    }
    ann.send(r#"{"type":"token"}"#).await;
    assert_eq!(ann.error_code().await, "invalid_payload");
    ann.expect_silence().await;
    let refused = "wss_messages_rejected_total{code=\"invalid_token\"} ";
    assert_eq!(node.metric(refused).await, Some(8.0));
}

#[tokio::test]
async fn plugins_see_the_new_claims_with_the_next_frame() {
    let config = format!(
        "[[plugins]]\nname = \"follower\"\npath = \"follower.wasm\"\nevents = [\"*\"]\n{PATIENT}\n{JWT}"
    );
    let node = Node::start_with(&[("follower.wasm", &component("follower"))], &config).await;
    let role =
        |role: &str| sign(&json!({"sub": "ann", "exp": seconds_from_now(3600.0), "role": role}));
    let mut ann = connect(&node, &role("guest")).await;
    for expected in ["guest", "host"] {
        assert_replaced(&mut ann, &role(expected)).await;
        ann.send(r#"{"type":"follower.call","payload":["context"]}"#)
            .await;
        let message = ann.json().await;
        let client = &message["payload"][0]["client"];
        let claims = client["claims"].as_str().expect("claims");
        let claims: Value = serde_json::from_str(claims).expect("JSON");
        assert_eq!(
            (&client["user"], &claims["role"]),
            (&json!("ann"), &json!(expected)),
            "{message}"
        );
    }
}

#[tokio::test]
async fn later_joins_depend_on_the_new_claims_and_the_connection_stays_in_its_rooms() {
    let rule = "[[rooms]]\nmatch = \"*\"\njoin = \"claim\"\n";
    let node = Node::start(&format!("{JWT}{rule}")).await;
    let with_rooms = |rooms: Value, join: Value| {
        sign(&json!({
            "sub": "ann", "exp": seconds_from_now(3600.0), "rooms": rooms, "join": join,
        }))
    };
    let mut ann = connect(&node, &with_rooms(json!(["a"]), json!([]))).await;
    let join = async |client: &mut Client, room: &str| {
        let frame = json!({"type": "join", "room": room, "id": "j"});
        client.send(&frame.to_string()).await;
        let answer = client.json().await;
        answer["type"] == "ack"
    };
    assert!(join(&mut ann, "a").await && !join(&mut ann, "b").await);
    assert_replaced(&mut ann, &with_rooms(json!(["b"]), json!(["c"]))).await;
    assert!(join(&mut ann, "b").await && !join(&mut ann, "d").await);
    for (room, is_member) in [("a", true), ("b", true), ("c", false)] {
        let message = json!({"type": "x", "payload": room, "room": room});
        ann.send(&message.to_string()).await;
        if is_member {
            assert_eq!(ann.json().await["room"], room);
        } else {
            assert_eq!(ann.error_code().await, "not_in_room");
        }
    }
}

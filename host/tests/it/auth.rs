//! Authentication: who may connect, as which user, and for how long. These tests make real upgrades with real tokens;
//! unit tests next to the code check the token format in detail.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Node, PATIENCE};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const WITH_SECRET: &str =
    "[auth]\nmode = \"jwt\"\njwt_secret = \"0123456789abcdef0123456789abcdef\"\n";
const RSA_PRIVATE: &[u8] = include_bytes!("../../auth/src/testdata/test_only_rsa_private.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../../auth/src/testdata/rsa_public.pem");
const EC_PRIVATE: &[u8] = include_bytes!("../../auth/src/testdata/test_only_ec_private.pem");
const EC_PUBLIC: &[u8] = include_bytes!("../../auth/src/testdata/ec_public.pem");
const JWKS: &[u8] = include_bytes!("../../auth/src/testdata/jwks.json");

fn seconds_from_now(seconds: f64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs_f64() + seconds
}

fn claims() -> Value {
    json!({"sub": "ann", "exp": seconds_from_now(3600.0)})
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn sign(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    encode(&header, claims, key).expect("signed")
}

fn hs256(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    sign(Algorithm::HS256, None, &key, claims)
}

fn rs256(kid: Option<&str>) -> String {
    let key = EncodingKey::from_rsa_pem(RSA_PRIVATE).expect("a key");
    sign(Algorithm::RS256, kid, &key, &claims())
}

fn es256(kid: Option<&str>) -> String {
    let key = EncodingKey::from_ec_pem(EC_PRIVATE).expect("a key");
    sign(Algorithm::ES256, kid, &key, &claims())
}

/// Connects with `token`, and returns the user that the server identified.
async fn user_of(node: &Node, token: &str) -> String {
    let path = format!("/ws?token={token}");
    let v1 = [("Sec-WebSocket-Protocol", "signalbox.v1")];
    let upgraded = node.upgrade(&path, &v1).await;
    let (mut client, _) = upgraded.unwrap_or_else(|error| panic!("{token} is refused: {error}"));
    let welcome = client.json().await;
    welcome["payload"]["userId"].as_str().unwrap().to_owned()
}

async fn assert_refused(node: &Node, token: &str, code: &str) {
    let answer = node.refused(&format!("/ws?token={token}"), &[]).await;
    assert_eq!(answer.status, 401, "{token}");
    assert_eq!(answer.error_code(), code, "{token}");
    let challenge = answer.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer error=\"invalid_token\""));
    assert!(!answer.body.contains(token), "a token is not repeated");
}

#[tokio::test]
async fn without_tokens_a_client_must_name_its_user() {
    let node = Node::start("").await;
    for path in ["/ws", "/ws?userId=", "/ws?userid=ann", "/ws?token=a"] {
        let refused = node.refused(path, &[]).await;
        // A request that is not an upgrade gets the same response.
        let asked = node.http(&format!("GET {path} HTTP/1.1")).await;
        for answer in [refused, asked] {
            assert_eq!((answer.status, answer.body.trim()), (400, "missing userId"));
            let kind = answer.header("content-type").unwrap();
            assert!(kind.starts_with("text/plain"), "{kind}");
        }
    }
    let longest = "a".repeat(255);
    node.client(&longest).await;
    let answer = node.refused(&format!("/ws?userId={longest}a"), &[]).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "invalid_user_id")
    );
    let answer = node.refused("/ws?userId=%ff", &[]).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "invalid_user_id")
    );
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_gets_426() {
    let node = Node::start("").await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (head, status) in [
        ("GET /ws?userId=a HTTP/1.1".to_owned(), 426),
        (
            "GET /ws?userId=a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c".to_owned(),
            426,
        ),
        (
            format!(
                "GET /ws?userId=a HTTP/1.1\r\n{}",
                upgrade.replace("13", "8")
            ),
            426,
        ),
        (
            format!(
                "GET /ws?userId=a HTTP/1.1\r\n{}",
                upgrade.replace("dGhl", "d")
            ),
            400,
        ),
        (format!("POST /ws?userId=a HTTP/1.1\r\n{upgrade}"), 405),
    ] {
        // `http` adds a second `Connection` header, which must not revoke the upgrade.
        let answer = node.http(&head).await;
        assert_eq!(answer.status, status, "{head}: {}", answer.body);
    }
    node.until_metric("wss_active_connections ", |open| open == 0.0)
        .await;
}

#[tokio::test]
async fn a_token_comes_by_header_by_subprotocol_or_by_query() {
    let node = Node::start(WITH_SECRET).await;
    let token = hs256(&claims());
    let bearer = format!("Bearer {token}");
    let (offer, with_v1) = (
        format!("bearer, {token}"),
        format!("bearer, {token}, signalbox.v1"),
    );
    let query = format!("/ws?token={token}");
    for (path, header, selected) in [
        (query.as_str(), None, None),
        ("/ws", Some(("Authorization", bearer.as_str())), None),
        // The server must select an offered subprotocol and never echo the token; otherwise a browser fails the
        // connection.
        (
            "/ws",
            Some(("Sec-WebSocket-Protocol", offer.as_str())),
            Some("bearer"),
        ),
        (
            "/ws",
            Some(("Sec-WebSocket-Protocol", with_v1.as_str())),
            Some("signalbox.v1"),
        ),
    ] {
        let (mut ann, answer) = node.upgrade(path, header.as_slice()).await.unwrap();
        let answered = answer.headers().get("sec-websocket-protocol");
        assert_eq!(answered.map(|value| value.to_str().unwrap()), selected);
        if selected == Some("signalbox.v1") {
            assert_eq!(ann.json().await["payload"]["userId"], "ann");
        }
        ann.send(r#"{"type":"x","receiverId":"ann"}"#).await;
        assert_eq!(ann.json().await["senderId"], "ann");
    }
    // With tokens, the server ignores a user named by the client.
    let answer = node.refused("/ws?userId=ann", &[]).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (401, "missing_token")
    );
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn tokens_are_signed_by_hs256_rs256_or_es256() {
    let with = |key: &str| format!("[auth]\nmode = \"jwt\"\n{key}\n");
    let hs = Node::start(WITH_SECRET).await;
    assert_eq!(user_of(&hs, &hs256(&claims())).await, "ann");
    assert_refused(&hs, &rs256(None), "invalid_token").await;
    let rsa = [("key.pem", RSA_PUBLIC)];
    let rs = Node::start_with(&rsa, &with("jwt_key_file = \"key.pem\"")).await;
    assert_eq!(user_of(&rs, &rs256(None)).await, "ann");
    assert_refused(&rs, &es256(None), "invalid_token").await;
    let ec = [("key.pem", EC_PUBLIC)];
    let es = Node::start_with(&ec, &with("jwt_key_file = \"key.pem\"")).await;
    assert_eq!(user_of(&es, &es256(None)).await, "ann");
    let set = [("jwks.json", JWKS)];
    let set = Node::start_with(&set, &with("jwks_file = \"jwks.json\"")).await;
    assert_eq!(user_of(&set, &rs256(Some("rsa-1"))).await, "ann");
    assert_eq!(user_of(&set, &es256(Some("ec-1"))).await, "ann");
    assert_refused(&set, &rs256(Some("rsa-2")), "invalid_token").await;
    // Algorithm confusion: the public key used as the secret of an HMAC algorithm.
    let confused = |kid| {
        let key = EncodingKey::from_secret(RSA_PUBLIC);
        sign(Algorithm::HS256, kid, &key, &claims())
    };
    assert_refused(&rs, &confused(None), "invalid_token").await;
    assert_refused(&set, &confused(Some("rsa-1")), "invalid_token").await;
}

#[tokio::test]
async fn a_token_that_is_not_in_order_is_refused_with_401_in_json() {
    let node = Node::start(&format!(
        "{WITH_SECRET}jwt_issuer = \"i\"\njwt_audience = \"a\""
    ))
    .await;
    let mut good = claims();
    (good["iss"], good["aud"]) = (json!("i"), json!("a"));
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        hs256(&claims)
    };
    let token = hs256(&good);
    assert_eq!(user_of(&node, &token).await, "ann");
    let parts: Vec<&str> = token.split('.').collect();
    // `{"alg":"none"}` in base64url.
    let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    let other_key = EncodingKey::from_secret(b"another secret of at least 32 bytes");
    for (token, code) in [
        (none, "invalid_token"),
        ("garbage".to_owned(), "invalid_token"),
        (format!("{}.{}.AAAA", parts[0], parts[1]), "invalid_token"),
        (
            sign(Algorithm::HS256, None, &other_key, &good),
            "invalid_token",
        ),
        (hs256(&claims()), "invalid_token"),
        (with("iss", json!("j")), "invalid_token"),
        (with("aud", json!("b")), "invalid_token"),
        (
            with("nbf", json!(seconds_from_now(3600.0))),
            "invalid_token",
        ),
        (with("exp", json!(seconds_from_now(-1.0))), "token_expired"),
        (with("exp", Value::Null), "invalid_token"),
        (with("sub", json!("")), "invalid_token"),
        (with("sub", json!("a".repeat(256))), "invalid_token"),
        (with("sub", json!(7)), "invalid_token"),
    ] {
        assert_refused(&node, &token, code).await;
    }
    assert_eq!(
        user_of(&node, &with("sub", json!("a".repeat(255))))
            .await
            .len(),
        255
    );
    node.until_metric("wss_upgrades_refused_total{reason=\"auth\"} ", |refused| {
        refused == 13.0
    })
    .await;
    node.until_metric("wss_active_connections ", |open| open == 0.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_token_although_the_client_never_pauses() {
    let node = Node::start(&format!(
        "{WITH_SECRET}grace = \"0s\"\n[limits]\nmessages_per_second = 0"
    ))
    .await;
    let forever = hs256(&claims_with("sub", json!("bob")));
    let (mut bob, _) = node
        .upgrade(&format!("/ws?token={forever}"), &[])
        .await
        .unwrap();
    let token = hs256(&claims_with("exp", json!(seconds_from_now(3.0))));
    let (ann, _) = node
        .upgrade(&format!("/ws?token={token}"), &[])
        .await
        .unwrap();
    let (mut to_server, mut from_server) = ann.split();
    let flood = tokio::spawn(async move {
        // Sends without a pause, and far more than one read returns.
        let frame = Message::text(r#"{"type":"heartbeat"}"#);
        while to_server.feed(frame.clone()).await.is_ok() {}
    });
    let close = async {
        loop {
            match from_server.next().await {
                Some(Ok(Message::Close(Some(close)))) => return u16::from(close.code),
                Some(Ok(_)) => {}
                other => panic!("expected a close frame, got {other:?}"),
            }
        }
    };
    assert_eq!(
        timeout(PATIENCE, close).await.expect("the token expires"),
        4500
    );
    drop(from_server);
    timeout(PATIENCE, flood)
        .await
        .expect("the flood ends")
        .unwrap();
    // The server decided on this close, so it is not abnormal; other connections go on.
    node.until_metric("wss_closes_total{code=\"token_expired\"} ", |closes| {
        closes == 1.0
    })
    .await;
    assert_eq!(
        node.metric("wss_unexpected_disconnects_total ").await,
        Some(0.0)
    );
    bob.expect_silence().await;
}

#[tokio::test]
async fn pages_come_from_the_same_host_unless_the_configuration_says_more() {
    let same = Node::start("").await;
    let list =
        "[server]\nallowed_origins = [\"https://app.example.com\", \"http://localhost:3000\"]";
    let listed = Node::start(list).await;
    let any = Node::start("[server]\nallowed_origins = [\"*\"]").await;
    let own = format!("http://{}", same.address);
    for (node, origin, comes_in) in [
        (&same, Some(own.as_str()), true),
        (&same, None, true),
        (&same, Some("https://evil.example.com"), false),
        (&same, Some("http://127.0.0.1:1"), false),
        (&same, Some("null"), false),
        (&listed, Some("https://app.example.com"), true),
        (&listed, Some("https://APP.example.com:443"), true),
        (&listed, Some("http://localhost:3000"), true),
        (&listed, None, true),
        (&listed, Some("http://app.example.com"), false),
        (&listed, Some("https://app.example.com.evil.com"), false),
        (&any, Some("https://evil.example.com"), true),
        (&any, Some("null"), true),
    ] {
        let header = origin.map(|origin| ("Origin", origin));
        let path = "/ws?userId=ann";
        if comes_in {
            let (mut ann, _) = node.upgrade(path, header.as_slice()).await.unwrap();
            ann.expect_silence().await;
        } else {
            let answer = node.refused(path, header.as_slice()).await;
            assert_eq!(answer.status, 403, "{origin:?}");
            assert_eq!(answer.error_code(), "origin_not_allowed");
        }
    }
}

#[tokio::test]
async fn a_foreign_page_does_not_learn_whether_a_token_is_good() {
    let node = Node::start(WITH_SECRET).await;
    let token = hs256(&claims());
    for token in [token.as_str(), "bad"] {
        let path = format!("/ws?token={token}");
        let answer = node
            .refused(&path, &[("Origin", "https://evil.example.com")])
            .await;
        assert_eq!(answer.status, 403);
    }
}

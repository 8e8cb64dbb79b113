//! Rooms that a client joins with a token for the room.

use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, component},
    harness::{Client, Endpoint, Node, with_plugin_cache},
    jwks_url,
    live_auth::{JWKS, es256_for, rs256, set, until_status},
    redis::until,
    tokens::{self, JWT, SECRET, connect, connect_v1, replace, seconds_from_now, sign},
};

const API: &str = "[api]\nkeys = [\"first-key-of-tests\"]\n";
const KEY: &str = "first-key-of-tests";
const TOKEN_ROOMS: &str = "[[rooms]]\nmatch = \"*\"\njoin = \"token\"\n";
const SEEN: &str = "[[rooms]]\nmatch = \"*\"\njoin = \"token\"\npresence = true\n\
                    [presence]\nflush = \"10ms\"\ngrace = \"0s\"\n";
const ENDED: &str = "wss_room_grants_ended_total";

/// The claims of a token for ann to join `room`.
pub(crate) fn claims(room: &str, seconds: f64) -> Value {
    json!({"sub": "ann", "room": room, "exp": seconds_from_now(seconds)})
}

/// A token for ann to join `room`.
pub(crate) fn room_token(room: &str, seconds: f64) -> String {
    sign(&claims(room, seconds))
}

pub(crate) fn token_of(user: &str) -> String {
    sign(&json!({"sub": user, "exp": seconds_from_now(3600.0)}))
}

/// Joins `room` with this payload, and returns the answer. Frames before it are skipped.
async fn join_with(client: &mut Client, room: &str, payload: Value) -> Value {
    let frame = json!({"type": "join", "room": room, "id": "j", "payload": payload});
    client.send(&frame.to_string()).await;
    loop {
        let answer = client.json().await;
        if answer["payload"]["id"] == "j" {
            return answer;
        }
    }
}

/// Joins `room` with `token`, and returns its place in the history.
async fn join(client: &mut Client, room: &str, token: &str) -> Value {
    let mut answer = join_with(client, room, json!({"token": token})).await;
    assert_eq!(answer["payload"]["status"], "handled", "{answer}");
    answer["payload"]["room"].take()
}

async fn refusal(client: &mut Client, room: &str, payload: Value) -> String {
    let answer = join_with(client, room, payload).await;
    assert_eq!(answer["type"], "error", "{answer}");
    let code = answer["payload"]["code"].as_str();
    code.expect("a code").to_owned()
}

/// Whether the client may send to `room`.
async fn is_member(client: &mut Client, room: &str) -> bool {
    let frame = json!({"type": "x", "room": room, "payload": "m", "id": "m"});
    client.send(&frame.to_string()).await;
    let mut answer = client.json().await;
    while answer["payload"] == "m" {
        answer = client.json().await;
    }
    assert_eq!(answer["payload"]["id"], "m", "{answer}");
    answer["type"] == "ack"
}

/// The next frame, which must be `left` of `room`, and its reason.
async fn left(client: &mut Client, room: &str) -> Value {
    let frame = client.json().await;
    assert_eq!(
        (&frame["type"], &frame["payload"]["room"]),
        (&json!("left"), &json!(room)),
        "{frame}"
    );
    frame["payload"]["reason"].clone()
}

async fn until_not_a_member(client: &mut Client, room: &str) {
    while is_member(client, room).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_room_token_lets_its_user_join_its_room_and_no_other() {
    let node = Node::start(&format!("{JWT}jwt_issuer = \"i\"\n{TOKEN_ROOMS}")).await;
    let signed = |mut claims: Value, changes: Value| {
        claims["iss"] = json!("i");
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        sign(&claims)
    };
    let good = || claims("chat:7", 60.0);
    let connection = json!({"sub": "ann", "exp": seconds_from_now(60.0)});
    let mut ann = connect(&node, &signed(connection.clone(), json!({}))).await;
    let token = signed(good(), json!({}));
    let (unsigned, _) = token.rsplit_once('.').expect("it has a signature");
    for (payload, what) in [
        (Value::Null, "no token"),
        (json!({"token": null}), "no token"),
        (json!({"token": ""}), "no token"),
        (json!({"token": "garbage"}), "garbage"),
        (json!({"token": signed(connection, json!({}))}), "no room"),
        (
            json!({"token": signed(good(), json!({"room": "chat:70"}))}),
            "another room",
        ),
        (
            json!({"token": signed(good(), json!({"room": "chat:*"}))}),
            "a prefix",
        ),
        (
            json!({"token": signed(good(), json!({"room": ["chat:7"]}))}),
            "a list",
        ),
        (
            json!({"token": signed(good(), json!({"sub": "bob"}))}),
            "another user",
        ),
        (
            json!({"token": signed(good(), json!({"iss": "j"}))}),
            "another issuer",
        ),
        (
            json!({"token": signed(good(), json!({"exp": seconds_from_now(-1.0)}))}),
            "expired",
        ),
        (
            json!({"token": signed(good(), json!({"exp": null}))}),
            "no end",
        ),
        (json!({"token": format!("{unsigned}.AAAA")}), "unsigned"),
    ] {
        let code = refusal(&mut ann, "chat:7", payload).await;
        assert_eq!(code, "invalid_token", "{what}");
        assert!(!is_member(&mut ann, "chat:7").await, "{what}");
    }
    join(&mut ann, "chat:7", &token).await;
    assert!(is_member(&mut ann, "chat:7").await);
    assert!(!is_member(&mut ann, "chat:70").await);
}

#[tokio::test]
async fn a_token_of_the_wrong_kind_is_an_error_for_v1_and_none_for_websocket_app() {
    let node = Node::start(&format!("{JWT}{TOKEN_ROOMS}")).await;
    let (mut v1, _) = connect_v1(&node, &token_of("ann")).await;
    let mut old = connect(&node, &token_of("ann")).await;
    let wrong = || json!({"token": 7});
    assert_eq!(refusal(&mut v1, "r", wrong()).await, "invalid_payload");
    assert_eq!(refusal(&mut old, "r", wrong()).await, "invalid_token");
}

#[tokio::test]
async fn a_room_token_opens_no_connection_and_replaces_no_token() {
    let node = Node::start(&format!("{JWT}{TOKEN_ROOMS}")).await;
    let token = room_token("chat:7", 60.0);
    let refused = node.refused(&format!("/ws?token={token}"), &[]).await;
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (401, "invalid_token")
    );
    let mut ann = connect(&node, &token_of("ann")).await;
    let answer = replace(&mut ann, &json!(token)).await;
    assert_eq!(answer["payload"]["code"], "invalid_token", "{answer}");
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_membership_ends_with_its_token_and_the_client_learns_why() {
    let node = Node::start(&format!("{JWT}grace = \"0s\"\n{SEEN}")).await;
    let mut bob = connect(&node, &token_of("bob")).await;
    let token = sign(&json!({"sub": "bob", "room": "r", "exp": seconds_from_now(3600.0)}));
    join_with(&mut bob, "r", json!({"token": token, "presence": true})).await;
    assert_eq!(bob.json().await["payload"]["total"], 1);
    let (mut v1, _) = connect_v1(&node, &token_of("ann")).await;
    let mut old = connect(&node, &token_of("ann")).await;
    let token = room_token("r", 10.0);
    join(&mut v1, "r", &token).await;
    join(&mut old, "r", &token).await;
    join(&mut old, "other", &room_token("other", 3600.0)).await;
    assert_eq!(bob.json().await["payload"]["joined"][0]["userId"], "ann");
    assert_eq!(left(&mut v1, "r").await, "expired");
    assert_eq!(bob.json().await["payload"]["left"], json!(["ann"]));
    // A client of websocket-app gets no frame that it does not know.
    old.expect_silence().await;
    assert!(!is_member(&mut old, "r").await && is_member(&mut old, "other").await);
    let expired = format!("{ENDED}{{reason=\"expired\"}} ");
    assert_eq!(node.metric(&expired).await, Some(2.0));
    // The connection goes on, and may come again.
    join(&mut v1, "r", &room_token("r", 3600.0)).await;
    assert!(is_member(&mut v1, "r").await);
}

#[tokio::test]
async fn within_the_grace_a_member_stays_and_another_token_renews_the_membership() {
    let rule = "[[rooms]]\nmatch = \"*\"\njoin = \"token\"\npresence = true\nhistory = { size = 5, time = \"5m\" }\n\
                [presence]\nflush = \"10ms\"\ngrace = \"0s\"\n";
    let node = Node::start(&format!("{JWT}grace = \"1h\"\n{rule}")).await;
    let mut bob = connect(&node, &token_of("bob")).await;
    let token = sign(&json!({"sub": "bob", "room": "r", "exp": seconds_from_now(3600.0)}));
    join_with(&mut bob, "r", json!({"token": token, "presence": true})).await;
    assert_eq!(bob.json().await["payload"]["total"], 1);
    let (mut ann, _) = connect_v1(&node, &token_of("ann")).await;
    let (mut late, _) = connect_v1(&node, &token_of("ann")).await;
    let short = room_token("r", 10.0);
    let at = join(&mut ann, "r", &short).await;
    join(&mut late, "r", &short).await;
    assert_eq!(bob.json().await["payload"]["joined"][0]["userId"], "ann");
    until("the token has expired", async || {
        let answer = join_with(&mut ann, "r", json!({"token": short})).await;
        (answer["type"] == "error").then_some(())
    })
    .await;
    assert!(is_member(&mut ann, "r").await, "the grace");
    let sent = bob.json().await;
    assert_eq!(late.json().await, sent);
    let renewed = json!({"token": room_token("r", 3600.0), "since": at});
    ann.send(&json!({"type": "join", "room": "r", "id": "j", "payload": renewed}).to_string())
        .await;
    // No second `joined`: the answer and the missed message.
    let answer = ann.json().await;
    assert_eq!(answer["payload"]["room"]["recovered"], true, "{answer}");
    assert_eq!(ann.json().await, sent);
    let auth = format!("{JWT}grace = \"0s\"\n{rule}");
    node.replace("platform.toml", with_plugin_cache(&auth).as_bytes());
    assert_eq!(left(&mut late, "r").await, "expired");
    ann.expect_silence().await;
    assert!(is_member(&mut ann, "r").await);
    // Nobody saw ann come again or leave.
    assert_eq!(bob.json().await["payload"], "m");
    bob.expect_silence().await;
}

#[tokio::test]
async fn the_other_members_see_the_info_of_a_room_token() {
    let node = Node::start(&format!("{JWT}{SEEN}{API}")).await;
    let connection = |user: &str| {
        let info = json!({"from": "connection"});
        sign(&json!({"sub": user, "exp": seconds_from_now(3600.0), "info": info}))
    };
    let with_info = |user: &str, info: Value| {
        sign(&json!({
            "sub": user, "room": "r", "exp": seconds_from_now(3600.0), "info": info,
        }))
    };
    let shown = async || {
        let head = format!("GET /api/rooms/r/members HTTP/1.1\r\nAuthorization: Bearer {KEY}");
        let answer = node.http(&head).await;
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        let members = body["members"].as_array().cloned().expect("a list");
        let infos = members.iter().map(|member| member["info"].clone());
        infos.collect::<Vec<_>>()
    };
    let mut ann = connect(&node, &connection("ann")).await;
    let mut bob = connect(&node, &connection("bob")).await;
    join(&mut ann, "r", &with_info("ann", json!({"name": "Ann"}))).await;
    // One that is too long or missing is left to the token of the connection.
    let long = json!({"name": "x".repeat(1024)});
    join(&mut bob, "r", &with_info("bob", long)).await;
    let of_connection = json!({"from": "connection"});
    assert_eq!(
        shown().await,
        [json!({"name": "Ann"}), of_connection.clone()]
    );
    join(&mut ann, "r", &with_info("ann", json!({"name": "Anna"}))).await;
    assert_eq!(shown().await, [json!({"name": "Anna"}), of_connection]);
}

async fn revoke(node: &Endpoint, body: Value) {
    let answer = node
        .post("/api/tokens/revoke", KEY, &[], &body.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn a_revoked_room_token_ends_the_membership_and_allows_no_join() {
    let node = Node::start(&format!("{JWT}{TOKEN_ROOMS}{API}")).await;
    let token = |id: &str, room: &str, age: f64| {
        let mut claims = claims(room, 3600.0);
        claims["jti"] = json!(id);
        claims["iat"] = json!(seconds_from_now(-age).floor());
        sign(&claims)
    };
    let own = json!({
        "sub": "ann", "exp": seconds_from_now(3600.0), "jti": "own", "iat": seconds_from_now(-10.0).floor(),
    });
    let (mut ann, _) = connect_v1(&node, &sign(&own)).await;
    let (by_id, by_time) = (token("a", "a", 10.0), token("b", "b", 1_000.0));
    join(&mut ann, "a", &by_id).await;
    join(&mut ann, "b", &by_time).await;
    join(&mut ann, "c", &token("c", "c", 10.0)).await;
    revoke(&node, json!({"jti": "a"})).await;
    assert_eq!(left(&mut ann, "a").await, "revoked");
    let before = seconds_from_now(-500.0) as u64;
    revoke(&node, json!({"user": "ann", "issuedBefore": before})).await;
    assert_eq!(left(&mut ann, "b").await, "revoked");
    for (room, token) in [("a", by_id), ("b", by_time)] {
        let code = refusal(&mut ann, room, json!({"token": token})).await;
        assert_eq!(code, "invalid_token");
    }
    assert!(is_member(&mut ann, "c").await);
    let revoked = format!("{ENDED}{{reason=\"revoked\"}} ");
    assert_eq!(node.metric(&revoked).await, Some(2.0));
}

#[tokio::test]
async fn a_rule_that_changes_to_token_keeps_the_members_and_one_that_changes_back_keeps_them_too() {
    let open = format!("{JWT}grace = \"0s\"\n[[rooms]]\nmatch = \"r\"\n");
    let closed = format!("{JWT}grace = \"0s\"\n[[rooms]]\nmatch = \"*\"\njoin = \"token\"\n");
    let node = Node::start(&open).await;
    let mut ann = connect(&node, &token_of("ann")).await;
    join_with(&mut ann, "r", Value::Null).await;
    node.replace("platform.toml", with_plugin_cache(&closed).as_bytes());
    until("the rule is in force", async || {
        let answer = join_with(&mut ann, "r", Value::Null).await;
        (answer["type"] == "error").then_some(())
    })
    .await;
    assert!(is_member(&mut ann, "r").await);
    // Its membership ends with a token only if it joins with one.
    let mut late = connect(&node, &token_of("ann")).await;
    join(&mut late, "r", &room_token("r", 10.0)).await;
    let mut kept = connect(&node, &token_of("ann")).await;
    until_not_a_member(&mut late, "r").await;
    assert!(is_member(&mut ann, "r").await);
    join(&mut kept, "r2", &room_token("r2", 10.0)).await;
    node.replace("platform.toml", with_plugin_cache(&open).as_bytes());
    until("the rule is in force", async || {
        let answer = join_with(&mut late, "r", Value::Null).await;
        (answer["type"] == "ack").then_some(())
    })
    .await;
    // The token expires, and means nothing any more.
    let mut clock = connect(&node, &tokens::token(11.0)).await;
    assert_eq!(clock.closed().await, 4500);
    assert!(is_member(&mut kept, "r2").await);
}

#[tokio::test]
async fn a_member_that_a_backend_adds_does_not_leave_with_a_token() {
    let node = Node::start(&format!("{JWT}grace = \"0s\"\n{TOKEN_ROOMS}{API}")).await;
    let mut ann = connect(&node, &token_of("ann")).await;
    let mut eve = connect(&node, &token_of("ann")).await;
    join(&mut ann, "r", &room_token("r", 10.0)).await;
    let head = format!(
        "PUT /api/rooms/r/members/ann HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 0"
    );
    assert_eq!(node.http(&head).await.status, 200);
    join(&mut eve, "other", &room_token("other", 10.0)).await;
    until_not_a_member(&mut eve, "other").await;
    assert!(is_member(&mut ann, "r").await);
}

#[tokio::test]
async fn plugins_decide_after_the_token() {
    let config = format!(
        "[[plugins]]\nname = \"follower\"\npath = \"follower.wasm\"\nevents = [\"*\"]\n{PATIENT}\n\
         config = {{ closed = [\"secret\"] }}\n{JWT}{TOKEN_ROOMS}"
    );
    let node = Node::start_with(&[("follower.wasm", &component("follower"))], &config).await;
    let mut ann = connect(&node, &token_of("ann")).await;
    let secret = json!({"token": room_token("secret", 60.0)});
    assert_eq!(refusal(&mut ann, "secret", secret).await, "closed");
    let without = refusal(&mut ann, "secret", Value::Null).await;
    assert_eq!(without, "invalid_token");
    assert!(!is_member(&mut ann, "secret").await);
    join(&mut ann, "open", &room_token("open", 60.0)).await;
}

#[tokio::test]
async fn a_room_token_with_a_new_key_makes_the_node_fetch_the_keys_again() {
    let (provider, answer) = jwks_url::provider().await;
    answer.send_replace(Some(set(0)));
    let auth = jwks_url::from_url(&format!("http://{}/jwks", provider.address));
    let node = Node::start(&format!("[auth]\nmode = \"jwt\"\n{auth}{TOKEN_ROOMS}")).await;
    let known = rs256(Some("rsa-1"));
    until_status(&node, &known, 101).await;
    let mut ann = tokens::connect(&node, &known).await;
    answer.send_replace(Some(JWKS.to_owned()));
    let payload = json!({"token": es256_for("ec-1", "r")});
    until("the keys are fetched", async || {
        let answer = join_with(&mut ann, "r", payload.clone()).await;
        (answer["type"] == "ack").then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_token_keys_a_rule_that_needs_them_is_refused() {
    let node = Node::start(TOKEN_ROOMS.replace("token", "open").as_str()).await;
    node.replace("platform.toml", with_plugin_cache(TOKEN_ROOMS).as_bytes());
    node.until_metric("wss_config_reloads_failed_total ", |count| count == 1.0)
        .await;
    // A file that changes `auth.mode` too waits for a restart: nobody can join until then.
    let both = format!("{JWT}{TOKEN_ROOMS}");
    assert!(both.contains(SECRET));
    node.replace("platform.toml", with_plugin_cache(&both).as_bytes());
    let mut ann = node.client("ann").await;
    until("the rule is in force", async || {
        let payload = json!({"token": room_token("r", 60.0)});
        let answer = join_with(&mut ann, "r", payload).await;
        (answer["payload"]["code"] == "invalid_token").then_some(())
    })
    .await;
}

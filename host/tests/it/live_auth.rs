//! Keys and secrets change while the server runs: the next upgrade is checked against the new ones, and nobody is
//! disconnected.

use std::{
    os::unix::fs::symlink,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    harness::{Endpoint, Node, PATIENCE, with_plugin_cache},
    process::{Server, Signal},
};

const ONE: &str = "0123456789abcdef0123456789abcdef";
const TWO: &str = "fedcba9876543210fedcba9876543210";
pub(crate) const FAILED: &str = "wss_auth_key_reloads_failed_total ";
const RSA_PRIVATE: &[u8] = include_bytes!("../../auth/src/testdata/test_only_rsa_private.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../../auth/src/testdata/rsa_public.pem");
const EC_PRIVATE: &[u8] = include_bytes!("../../auth/src/testdata/test_only_ec_private.pem");
const EC_PUBLIC: &[u8] = include_bytes!("../../auth/src/testdata/ec_public.pem");
pub(crate) const JWKS: &str = include_str!("../../auth/src/testdata/jwks.json");

fn sign(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey) -> String {
    sign_for(algorithm, kid, key, None)
}

/// A token for connecting, or for joining `room`.
fn sign_for(
    algorithm: Algorithm,
    kid: Option<&str>,
    key: &EncodingKey,
    room: Option<&str>,
) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let exp = now.expect("after 1970").as_secs() + 3600;
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    let claims = json!({"sub": "ann", "exp": exp, "iss": "i", "aud": "a", "room": room});
    encode(&header, &claims, key).expect("signed")
}

/// A token for joining `room`.
pub(crate) fn es256_for(kid: &str, room: &str) -> String {
    let key = EncodingKey::from_ec_pem(EC_PRIVATE).expect("a key");
    sign_for(Algorithm::ES256, Some(kid), &key, Some(room))
}

fn hs256(secret: &str) -> String {
    sign(
        Algorithm::HS256,
        None,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
}

pub(crate) fn rs256(kid: Option<&str>) -> String {
    sign(
        Algorithm::RS256,
        kid,
        &EncodingKey::from_rsa_pem(RSA_PRIVATE).expect("a key"),
    )
}

pub(crate) fn es256(kid: Option<&str>) -> String {
    sign(
        Algorithm::ES256,
        kid,
        &EncodingKey::from_ec_pem(EC_PRIVATE).expect("a key"),
    )
}

/// A key set with the RSA (0) or EC (1) key.
pub(crate) fn set(index: usize) -> String {
    let all: Value = serde_json::from_str(JWKS).expect("JSON");
    json!({ "keys": [all["keys"][index]] }).to_string()
}

/// The status of an upgrade with `token`: 101 if it succeeds.
pub(crate) async fn status(node: &Endpoint, token: &str) -> u16 {
    match node.upgrade(&format!("/ws?token={token}"), &[]).await {
        Ok((client, _)) => {
            client.close().await;
            101
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("no answer: {error}"),
    }
}

/// Waits until upgrades with `token` get the status `wanted`.
pub(crate) async fn until_status(node: &Endpoint, token: &str, wanted: u16) {
    let answered = async {
        while status(node, token).await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, answered)
        .await
        .unwrap_or_else(|_| panic!("no upgrade got the status {wanted}"));
}

pub(crate) fn configure(node: &Node, auth: &str) {
    let text = with_plugin_cache(&format!("[auth]\nmode = \"jwt\"\n{auth}"));
    node.replace("platform.toml", text.as_bytes());
}

#[tokio::test]
async fn a_secret_is_rotated_while_both_are_accepted_and_no_client_is_disconnected() {
    let node = Node::start(&format!("[auth]\nmode = \"jwt\"\njwt_secret = \"{ONE}\"\n")).await;
    let path = format!("/ws?token={}", hs256(ONE));
    let (mut ann, _) = node.upgrade(&path, &[]).await.expect("a good token");
    assert_eq!(status(&node, &hs256(TWO)).await, 401);
    configure(
        &node,
        &format!("jwt_secret = \"{TWO}\"\njwt_secret_previous = \"{ONE}\"\n"),
    );
    until_status(&node, &hs256(TWO), 101).await;
    assert_eq!(status(&node, &hs256(ONE)).await, 101);
    configure(&node, &format!("jwt_secret = \"{TWO}\"\n"));
    until_status(&node, &hs256(ONE), 401).await;
    assert_eq!(status(&node, &hs256(TWO)).await, 101);
    ann.expect_silence().await;
}

#[tokio::test]
async fn issuer_and_audience_are_live() {
    let auth = format!("jwt_secret = \"{ONE}\"\n");
    let node = Node::start(&format!("[auth]\nmode = \"jwt\"\n{auth}")).await;
    for demand in ["jwt_issuer = \"other\"\n", "jwt_audience = \"other\"\n"] {
        configure(&node, &format!("{auth}{demand}"));
        until_status(&node, &hs256(ONE), 401).await;
        configure(&node, &auth);
        until_status(&node, &hs256(ONE), 101).await;
    }
}

#[tokio::test]
async fn a_key_file_that_is_replaced_or_written_in_place_is_read_again() {
    let config = "[auth]\nmode = \"jwt\"\njwt_key_file = \"key.pem\"\n";
    let node = Node::start_with(&[("key.pem", RSA_PUBLIC)], config).await;
    assert_eq!(status(&node, &rs256(None)).await, 101);
    node.replace("key.pem", EC_PUBLIC);
    until_status(&node, &es256(None), 101).await;
    assert_eq!(status(&node, &rs256(None)).await, 401);
    std::fs::write(node.path("key.pem"), RSA_PUBLIC).expect("written in place");
    until_status(&node, &rs256(None), 101).await;
}

#[tokio::test]
async fn a_key_file_behind_links_that_are_swapped_as_in_kubernetes_is_read_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let volume = |name: &str, text: &str| {
        std::fs::create_dir(dir.path().join(name)).expect("a folder");
        std::fs::write(dir.path().join(name).join("jwks.json"), text).expect("a file");
    };
    volume("..1", &set(0));
    volume("..2", &set(1));
    symlink("..1", dir.path().join("..data")).expect("a link");
    symlink("..data/jwks.json", dir.path().join("jwks.json")).expect("a link");
    let file = dir.path().join("jwks.json");
    let config = format!("[auth]\nmode = \"jwt\"\njwks_file = {file:?}\n");
    let node = Node::start(&config).await;
    assert_eq!(status(&node, &rs256(None)).await, 101);
    symlink("..2", dir.path().join("..next")).expect("a link");
    std::fs::rename(dir.path().join("..next"), dir.path().join("..data")).expect("a swap");
    until_status(&node, &es256(None), 101).await;
    assert_eq!(status(&node, &rs256(None)).await, 401);
}

#[tokio::test]
async fn an_invalid_key_file_keeps_the_last_good_keys_and_is_logged_and_counted() {
    let config = "[auth]\nmode = \"jwt\"\njwks_file = \"jwks.json\"\njwt_issuer = \"i\"\njwt_audience = \"a\"\n";
    let mut server = Server::start_with(
        &[("jwks.json", JWKS.as_bytes())],
        config,
        &[("WSS_PORT", "0")],
    )
    .await;
    std::fs::write(server.dir.path().join("jwks.json"), "{\"keys\":").expect("half a file");
    let line = server.until_log("the last good ones stay in use").await;
    assert!(
        line.contains("ERROR") && line.contains("auth.jwks_file"),
        "{line}"
    );
    server.until_metric(FAILED, |count| count >= 1.0).await;
    assert_eq!(status(&server, &rs256(Some("rsa-1"))).await, 101);
    std::fs::remove_file(server.dir.path().join("jwks.json")).expect("no file");
    server.until_metric(FAILED, |count| count >= 2.0).await;
    assert_eq!(status(&server, &rs256(Some("rsa-1"))).await, 101);
    std::fs::write(server.dir.path().join("jwks.json"), set(1)).expect("a file");
    until_status(&server, &rs256(Some("rsa-1")), 401).await;
    assert_eq!(status(&server, &es256(Some("ec-1"))).await, 101);
    server.signal(Signal::TERM);
    assert!(server.exit().await.success());
}

#[tokio::test]
async fn another_key_file_that_is_of_no_use_refuses_the_whole_configuration() {
    let config = format!("[auth]\nmode = \"jwt\"\njwt_secret = \"{ONE}\"\n");
    let server = Server::start(&config).await;
    server.configure("[auth]\nmode = \"jwt\"\njwt_key_file = \"missing.pem\"\n");
    server
        .until_log("configuration refused, the old one stays in force")
        .await;
    server.until_log("auth.jwt_key_file: ").await;
    assert_eq!(status(&server, &hs256(ONE)).await, 101);
}

#[tokio::test]
async fn a_secret_in_a_separate_file_is_trimmed_and_reloaded() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("secret");
    let write = |secret: &str| {
        let next = dir.path().join("next");
        std::fs::write(&next, format!(" {secret}\n\n")).expect("a file");
        std::fs::rename(next, &file).expect("replaced");
    };
    write(ONE);
    let path = file.to_str().expect("a path");
    for variable in ["SIGNALBOX_AUTH__JWT_SECRET_FILE", "JWT_SECRET_FILE"] {
        write(ONE);
        let environment = [("WSS_PORT", "0"), (variable, path)];
        let server = Server::start_with(&[], "[auth]\nmode = \"jwt\"\n", &environment).await;
        assert_eq!(status(&server, &hs256(ONE)).await, 101);
        write(TWO);
        until_status(&server, &hs256(TWO), 101).await;
        assert_eq!(status(&server, &hs256(ONE)).await, 401);
        // An invalid secret changes nothing.
        write("short");
        server
            .until_log("configuration refused, the old one stays in force")
            .await;
        assert_eq!(status(&server, &hs256(TWO)).await, 101);
        std::fs::remove_file(&file).expect("no file");
        server
            .until_metric("wss_config_reloads_failed_total ", |count| count >= 2.0)
            .await;
        assert_eq!(status(&server, &hs256(TWO)).await, 101);
    }
}

#[tokio::test]
async fn keys_of_backends_and_operators_are_renewed_from_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| {
        std::fs::write(file("next"), text).expect("a file");
        std::fs::rename(file("next"), file(name)).expect("replaced");
    };
    write("admin", "the-first-admin-key\n");
    write("api", "the-first-api-key\nthe-second-api-key\n");
    let (admin, api) = (file("admin"), file("api"));
    let environment = [
        ("WSS_PORT", "0"),
        ("SIGNALBOX_ADMIN__KEY_FILE", admin.to_str().expect("a path")),
        ("SIGNALBOX_API__KEYS_FILE", api.to_str().expect("a path")),
    ];
    let server = Server::start_with(&[], "", &environment).await;
    let asked = async |path: &str, key: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {key}");
        server.http(&head).await.status
    };
    let (operators, backends) = ("/admin/config", "/api/users/ann");
    assert_eq!(asked(operators, "the-first-admin-key").await, 200);
    assert_eq!(asked(backends, "the-second-api-key").await, 200);
    write("admin", "the-other-admin-key\n");
    write("api", "the-second-api-key\n");
    let renewed = async {
        while asked(operators, "the-other-admin-key").await != 200
            || asked(backends, "the-first-api-key").await != 401
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, renewed)
        .await
        .expect("the keys are renewed");
    assert_eq!(asked(operators, "the-first-admin-key").await, 401);
    assert_eq!(asked(backends, "the-second-api-key").await, 200);
}

#[tokio::test]
async fn changes_that_need_a_restart_are_named_and_not_reported_as_applied() {
    let server = Server::start("").await;
    server.configure(
        "[cloudwatch]\nnamespace = \"a/b\"\ninterval = \"30s\"\n[tracing]\nsample_ratio = 0.5\n[metrics]\nprometheus = false\n",
    );
    let line = server.until_log("needs a restart: ").await;
    for key in [
        "cloudwatch.interval",
        "cloudwatch.namespace",
        "metrics.prometheus",
        "tracing.sample_ratio",
    ] {
        assert!(line.contains(key), "{key}: {line}");
    }
    // An unrelated change is applied, and reported separately.
    server.configure("[metrics]\nprometheus = false\n[limits]\nmessages_burst = 7\n");
    let line = server.until_log("configuration applied").await;
    assert!(line.contains("limits.messages_burst"), "{line}");
    assert!(!line.contains("prometheus"), "{line}");
    let applied = |lines: &Vec<String>| {
        let lines = lines.iter();
        lines
            .filter(|line| line.contains("configuration applied"))
            .count()
    };
    assert_eq!(
        applied(&server.log()),
        1,
        "not the first change, which was for a restart alone"
    );
    // Once no change is pending any more, none is reported.
    server.configure("[limits]\nmessages_burst = 8\n");
    let mut log = server.follow_log();
    let both = log.wait_for(|lines| applied(lines) == 2);
    timeout(PATIENCE, both)
        .await
        .expect("it is applied")
        .expect("it runs");
    let waiting = |line: &&String| line.contains("needs a restart: ");
    assert_eq!(server.log().iter().filter(waiting).count(), 2);
}

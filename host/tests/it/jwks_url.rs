//! Keys that a node fetches from `auth.jwks_url`, which a server in the test process provides.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};

use crate::{
    cli_admin::tls_in_front_of,
    harness::{Endpoint, Node},
    live_auth::{FAILED, JWKS, configure, es256, rs256, set, status, until_status},
    process::Server,
    redis::{tls, until},
    tokens,
};

/// An identity provider that serves the key set it was given last; None makes it answer 503, and an empty text nothing.
pub(crate) async fn provider() -> (Endpoint, watch::Sender<Option<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (sender, answer) = watch::channel(None::<String>);
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.borrow().clone();
            let (status, body) = match answer {
                Some(body) => ("200 OK", body),
                None => ("503 Service Unavailable", String::new()),
            };
            if status == "200 OK" && body.is_empty() {
                unanswered.push(stream);
                continue;
            }
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    (Endpoint { address }, sender)
}

/// Lines of `[auth]`.
pub(crate) fn from_url(url: &str) -> String {
    format!("jwks_url = \"{url}\"\njwt_issuer = \"i\"\njwt_audience = \"a\"\n")
}

#[tokio::test]
async fn keys_come_from_a_url_once_it_answers_and_a_new_one_with_the_first_token_that_names_it() {
    let (provider, answer) = provider().await;
    let auth = from_url(&format!("http://{}/jwks", provider.address));
    let node = Node::start(&format!("[auth]\nmode = \"jwt\"\n{auth}")).await;
    // The node serves, and reports that it cannot authenticate anyone.
    let (code, reason) = node.get("/ready").await;
    assert_eq!(code, 503);
    assert!(reason.contains("keys"), "{reason}");
    let refused = node
        .refused(&format!("/ws?token={}", rs256(Some("rsa-1"))), &[])
        .await;
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (503, "keys_unavailable")
    );
    assert!(refused.header("retry-after").is_some());
    assert!(node.metric(FAILED).await.is_some_and(|count| count >= 1.0));
    answer.send_replace(Some(set(0)));
    until_status(&node, &rs256(Some("rsa-1")), 101).await;
    assert_eq!(node.get("/ready").await.0, 200);
    answer.send_replace(Some(JWKS.to_owned()));
    until_status(&node, &es256(Some("ec-1")), 101).await;
    // The last good keys stay in use.
    answer.send_replace(None);
    assert_eq!(status(&node, &rs256(Some("rsa-1"))).await, 101);
}

#[tokio::test]
async fn a_new_token_that_cannot_be_checked_now_leaves_the_old_one_and_delays_no_message() {
    let (provider, answer) = provider().await;
    answer.send_replace(Some(set(0)));
    let auth = from_url(&format!("http://{}/jwks", provider.address));
    let node = Node::start(&format!("[auth]\nmode = \"jwt\"\n{auth}")).await;
    let known = rs256(Some("rsa-1"));
    until_status(&node, &known, 101).await;
    let mut ann = tokens::connect(&node, &known).await;
    let mut other = tokens::connect(&node, &known).await;
    answer.send_replace(Some(String::new()));
    let renewal = json!({"type": "token", "id": "t", "payload": es256(Some("ec-1"))});
    ann.send(&renewal.to_string()).await;
    other
        .send(r#"{"type":"x","payload":1,"receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], 1);
    let error = ann.json().await["payload"].clone();
    assert_eq!(
        (&error["code"], &error["retryable"]),
        (&json!("unavailable"), &json!(true))
    );
    ann.expect_silence().await;
    answer.send_replace(Some(JWKS.to_owned()));
    until("the token can be checked", async || {
        let answer = tokens::replace(&mut ann, &renewal["payload"]).await;
        (answer["type"] == "ack").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_goes_from_a_file_to_a_url_and_back_without_a_restart() {
    let (provider, answer) = provider().await;
    answer.send_replace(Some(set(1)));
    let auth = "jwks_file = \"jwks.json\"\n";
    let config = format!("[auth]\nmode = \"jwt\"\n{auth}");
    let rsa_alone = set(0);
    let node = Node::start_with(&[("jwks.json", rsa_alone.as_bytes())], &config).await;
    assert_eq!(status(&node, &rs256(Some("rsa-1"))).await, 101);
    configure(
        &node,
        &from_url(&format!("http://{}/jwks", provider.address)),
    );
    until_status(&node, &es256(Some("ec-1")), 101).await;
    until_status(&node, &rs256(Some("rsa-1")), 401).await;
    configure(&node, auth);
    until_status(&node, &rs256(Some("rsa-1")), 101).await;
}

#[tokio::test]
async fn the_server_of_a_jwks_url_needs_a_certificate_that_the_system_trusts() {
    let (provider, answer) = provider().await;
    answer.send_replace(Some(set(0)));
    let dir = tempfile::tempdir().expect("a folder");
    let port = tls_in_front_of(&provider, dir.path()).await;
    let config = format!(
        "[auth]\nmode = \"jwt\"\n{}",
        from_url(&format!("https://127.0.0.1:{port}/jwks"))
    );
    let ca = dir.path().join(tls::CA);
    let environment = [
        ("WSS_PORT", "0"),
        ("SSL_CERT_FILE", ca.to_str().expect("a path")),
    ];
    let server = Server::start_with(&[], &config, &environment).await;
    until_status(&server, &rs256(Some("rsa-1")), 101).await;
    // Certificates from another authority, which the node does not trust.
    let other = tempfile::tempdir().expect("a folder");
    tls::write_certificates(other.path());
    let ca = other.path().join(tls::CA);
    let environment = [
        ("WSS_PORT", "0"),
        ("SSL_CERT_FILE", ca.to_str().expect("a path")),
    ];
    let server = Server::start_with(&[], &config, &environment).await;
    let line = server
        .until_log("the keys of tokens cannot be renewed")
        .await;
    assert!(line.contains("certificate"), "{line}");
    assert_eq!(status(&server, &rs256(Some("rsa-1"))).await, 503);
}

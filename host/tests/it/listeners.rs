//! Listeners: the path of the WebSocket, and a separate listener for operators.

use crate::{
    harness::{Node, get},
    process::{Server, Signal, run},
};

const KEYS: &str =
    "[api]\nkeys = [\"an-api-key-of-tests\"]\n[admin]\nkey = \"an-admin-key-of-tests\"\n";

#[tokio::test]
async fn the_websocket_is_at_its_path_with_a_slash_at_its_end_and_without() {
    for (path, served, not_served) in [
        ("/ws", &["/ws", "/ws/"][..], "/ws/x"),
        ("/realtime/v1", &["/realtime/v1", "/realtime/v1/"], "/ws"),
        ("/", &["/"], "/ws"),
    ] {
        let node = Node::start(&format!("[server]\nwebsocket_path = \"{path}\"")).await;
        for path in served {
            let upgraded = node.upgrade(&format!("{path}?userId=ann"), &[]).await;
            upgraded.expect(path).0.expect_silence().await;
        }
        let answer = node.refused(&format!("{not_served}?userId=ann"), &[]).await;
        assert_eq!(answer.status, 404, "{not_served}");
    }
}

#[tokio::test]
async fn with_a_second_listener_clients_reach_nothing_of_operators() {
    let config = format!("[server]\ninternal_listen = \"127.0.0.1:1\"\n{KEYS}");
    let node = Node::start(&config).await;
    let internal = node.internal();
    for (path, status) in [
        ("/metrics", 200),
        ("/api/users/ann", 401),
        ("/api", 401),
        ("/admin/plugins", 401),
        ("/admin", 401),
    ] {
        assert_eq!(node.get(path).await.0, 404, "{path}");
        assert_eq!(internal.get(path).await.0, status, "{path}");
    }
    for path in ["/health", "/ready"] {
        assert_eq!(node.get(path).await.0, 200, "{path}");
        assert_eq!(internal.get(path).await.0, 200, "{path}");
    }
    let authorized = "GET /admin/plugins HTTP/1.1\r\nAuthorization: Bearer an-admin-key-of-tests";
    assert_eq!(internal.http(authorized).await.status, 200);
    assert_eq!(node.http(authorized).await.status, 404);
    let answer = internal.refused("/ws?userId=ann", &[]).await;
    assert_eq!(answer.status, 404);
    node.client("ann").await.expect_silence().await;
    assert_eq!(internal.metric("wss_connections_total ").await, Some(1.0));
}

#[tokio::test]
async fn the_program_serves_both_listeners_and_stops() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let internal = free.local_addr().unwrap();
    drop(free);
    let config = format!("[server]\ninternal_listen = \"{internal}\"\n");
    let mut server = Server::start(&config).await;
    assert_eq!(server.get("/metrics").await.0, 404);
    assert_eq!(get(internal, "/metrics").await.map(|it| it.0), Some(200));
    server.signal(Signal::TERM);
    assert!(server.exit().await.success());
}

#[tokio::test]
async fn a_bind_error_is_reported_with_advice() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let insecure = ("SIGNALBOX_AUTH__ALLOW_INSECURE", "true");
    let listener = std::net::TcpListener::bind(&taken);
    for (address, code, expected) in [
        (taken.as_str(), 1, "another server is there"),
        ("192.0.2.77:8080", 1, "no such address"),
        ("::1:8080", 2, "write [::1]:8080"),
        (":8080", 2, "write 0.0.0.0"),
    ] {
        let listen = ("SIGNALBOX_SERVER__LISTEN", address);
        let finished = run(dir.path(), &["run"], &[listen, insecure]).await;
        assert_eq!(finished.code, Some(code), "{address}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(expected),
            "{address}: {}",
            finished.stderr
        );
    }
    drop(listener);
}

#[tokio::test]
async fn a_key_that_can_be_guessed_is_refused_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    for (variable, key) in [
        ("SIGNALBOX_ADMIN__KEY", "hush-hush"),
        ("SIGNALBOX_API__KEYS", "a-key-that-is-long-enough,hush-hush"),
    ] {
        let finished = run(dir.path(), &["check"], &[(variable, key)]).await;
        assert_eq!(finished.code, Some(2), "{variable}");
        assert!(
            finished.stderr.contains("16 or more"),
            "{}",
            finished.stderr
        );
        assert!(!finished.stderr.contains("hush"), "{}", finished.stderr);
    }
}

//! SIGTERM to the real server, as seen by its clients, its load balancer and its supervisor.

use futures_util::future::select_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    harness::{Node, guest},
    process::{Server, Signal},
    raw::{CLOSE, FIN, RawClient, TEXT, upgrade_head},
    redis,
    redis_nodes::until_ready,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_closed_one_after_another_while_the_node_says_that_it_is_not_ready() {
    let mut server = Server::start("[server]\ndrain_timeout = \"6s\"").await;
    let mut clients = Vec::new();
    for index in 0..3 {
        clients.push(RawClient::connect(&server, &format!("u{index}")).await);
    }
    assert_eq!(server.get("/ready").await.0, 200);
    server.signal(Signal::TERM);
    while !clients.is_empty() {
        let next = clients.iter_mut().map(|client| Box::pin(client.closed()));
        let (code, index, _) = select_all(next).await;
        assert_eq!(code, 4000);
        let (status, reason) = server.get("/ready").await;
        assert_eq!(status, 503);
        assert!(reason.contains("shutting down"), "{reason}");
        assert_eq!(server.get("/health").await.0, 200);
        let answer = server.refused("/ws?userId=late", &[]).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (503, "draining")
        );
        // It answers the close, as clients do, and its slot is free.
        let mut closed = clients.remove(index);
        closed.send(FIN | CLOSE, &4000_u16.to_be_bytes()).await;
        closed.ended().await.expect("the connection is not reset");
        // The others have not been closed with it and are still served.
        for client in &mut clients {
            client
                .send(FIN | TEXT, br#"{"type":"heartbeat","id":"1"}"#)
                .await;
            assert_eq!(client.frame().await.unwrap().unwrap().0, TEXT);
        }
    }
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(server.log().iter().any(|line| line.contains("stopped")));
}

#[tokio::test]
async fn sigint_drains_too() {
    let mut server = Server::start("").await;
    let mut ann = server.client("ann").await;
    server.signal(Signal::INT);
    assert_eq!(ann.closed().await, 4000);
    ann.frame().await;
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_client_that_never_answers_the_close_is_cut_off_when_the_drain_time_is_over() {
    let mut server = Server::start("[server]\ndrain_timeout = \"3s\"").await;
    let mut deaf = RawClient::connect(&server, "deaf").await;
    server.signal(Signal::TERM);
    assert_eq!(deaf.closed().await, 4000);
    assert_eq!(server.exit().await.code(), Some(0));
    let log = server.log();
    let cut = log
        .iter()
        .any(|line| line.contains("cut off") && line.contains("connections=1"));
    assert!(cut, "{log:?}");
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once() {
    let mut server = Server::start("[server]\ndrain_timeout = \"1h\"").await;
    let mut deaf = RawClient::connect(&server, "deaf").await;
    server.signal(Signal::TERM);
    assert_eq!(deaf.closed().await, 4000);
    server.signal(Signal::TERM);
    // An hour is longer than `exit` waits.
    assert_ne!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn requests_that_never_come_to_an_end_do_not_keep_the_server() {
    let mut server = Server::start("[limits]\nupgrade_timeout = \"300s\"").await;
    let (mut nothing, mut half, mut idle) =
        (server.tcp().await, server.tcp().await, server.tcp().await);
    half.write_all(upgrade_head("/ws?userId=half").as_bytes())
        .await
        .unwrap();
    // A keep-alive connection that waits for the next request.
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(idle.read_u8().await.unwrap(), b'H');
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
    for stream in [&mut nothing, &mut half, &mut idle] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn without_connections_a_drain_takes_no_time() {
    let mut server = Server::start("[server]\ndrain_timeout = \"1h\"").await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_ends_with_the_last_connection_and_not_with_its_time() {
    let mut server = Server::start("[server]\ndrain_timeout = \"1h\"").await;
    let (one, two) = (
        RawClient::connect(&server, "one").await,
        RawClient::connect(&server, "two").await,
    );
    let mut clients = [one, two];
    server.signal(Signal::TERM);
    let next = clients.iter_mut().map(|client| Box::pin(client.closed()));
    let (_, first, _) = select_all(next).await;
    // One is asked to close; the other, whose turn is in half an hour, closes by itself.
    for (index, mut client) in clients.into_iter().enumerate() {
        let code: u16 = if index == first { 4000 } else { 1000 };
        client.send(FIN | CLOSE, &code.to_be_bytes()).await;
        client.ended().await.expect("the connection is not reset");
    }
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn an_upgrade_under_way_is_closed_with_4000_too() {
    let node = Node::start("[server]\ndrain_timeout = \"20s\"").await;
    // Connects repeatedly, to hit the moment when a slot is taken but the session has not begun.
    let stop = tokio::spawn({
        let endpoint = *node;
        async move {
            let mut codes = Vec::new();
            while let Ok(mut client) = endpoint.connect("ann", None).await {
                codes.push(tokio::spawn(async move { client.closed().await }));
                if codes.len() == 20 {
                    break;
                }
            }
            codes
        }
    });
    node.terminate();
    for code in stop.await.unwrap() {
        assert_eq!(code.await.unwrap(), 4000);
    }
    node.stopped().await;
}

#[tokio::test]
async fn a_server_that_still_loads_its_plugins_heeds_signals() {
    let hostile = std::fs::read(guest("hostile")).expect("`cargo xtask plugins --guests` makes it");
    // Its `init` runs until its time limit, and the server exits before that.
    let config = "[[plugins]]\nname = \"hostile\"\npath = \"hostile.wasm\"\nevents = [\"hostile.*\"]\n\
                  init_time_max = \"60s\"\nconfig = { init = \"loop\" }\n";
    let environment = [("WSS_PORT", "0"), ("RUST_LOG", "signalbox=debug")];
    let mut server = Server::launch(&[("hostile.wasm", &hostile)], config, &environment);
    server.until_log("watching").await;
    server.signal(Signal::HUP);
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
    let listened = |line: &String| line.contains("listening");
    assert!(
        !server.log().iter().any(listened),
        "it did not wait for the plugin"
    );
}

/// A node at this `redis` that pushes to a CloudWatch at `endpoint`, with this time to drain.
async fn reporting(redis: &redis::Server, endpoint: &str, drain_timeout: &str) -> Server {
    let config = format!(
        "[server]\ndrain_timeout = \"{drain_timeout}\"\n\
         [broker]\nkind = \"redis\"\n[redis]\nurl = \"{}\"\n\
         [cloudwatch]\nenabled = true\ninterval = \"1s\"\nendpoint = \"http://{endpoint}\"\n",
        redis.url()
    );
    let environment = [
        ("WSS_PORT", "0"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let server = Server::start_with(&[], &config, &environment).await;
    until_ready(&server).await;
    server
}

#[tokio::test]
async fn a_redis_and_a_cloudwatch_that_hang_do_not_keep_a_server_beyond_its_time() {
    let mut redis = redis::Server::start().await;
    // Accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = silent.local_addr().expect("an address").to_string();
    let mut server = reporting(&redis, &endpoint, "2s").await;
    let mut deaf = RawClient::connect(&server, "deaf").await;
    redis.stop();
    server.signal(Signal::TERM);
    assert_eq!(deaf.closed().await, 4000);
    // The server exits by itself in the end; it did not have to wait for anything.
    assert_eq!(server.exit().await.code(), Some(0));
    let stopped = server.until_log("stopped").await;
    assert!(stopped.contains("after="), "{stopped}");
}

#[tokio::test]
async fn a_second_signal_ends_a_server_at_once_although_redis_hangs() {
    let mut redis = redis::Server::start().await;
    let mut server = reporting(&redis, "127.0.0.1:9", "1h").await;
    let mut deaf = RawClient::connect(&server, "deaf").await;
    redis.stop();
    server.signal(Signal::TERM);
    assert_eq!(deaf.closed().await, 4000);
    server.signal(Signal::TERM);
    assert_ne!(server.exit().await.code(), Some(0));
}

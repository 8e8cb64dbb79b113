//! The real server with a log that nobody reads: it serves, drains, and reports afterwards how many lines were lost.

use tokio::time::timeout;

use crate::{
    harness::{Client, PATIENCE, folder},
    process::{LogReader, Server, Signal, launch_with_full_log},
};

/// The counter of lost lines.
const DROPPED: &str = "wss_log_lines_dropped_total";

/// The line that reports how many lines were lost.
const SUMMARY: &str = "lines of the log are lost";

/// Messages between two checks of the counter: few enough that no outbox fills.
const ROUND: usize = 200;

/// A server that logs a line for each message that it refuses.
async fn talkative() -> Server {
    let config = "[limits]\nmessages_per_second = 1000000\nmessages_burst = 1000000\n";
    let environment = [
        ("WSS_PORT", "0"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "debug"),
    ];
    Server::start_with(&[], config, &environment).await
}

/// Makes the server log until lines are lost. Each round checks that a client is still served.
async fn overflow(server: &Server, client: &mut Client) {
    while server.metric(DROPPED).await.expect("it is counted") == 0.0 {
        for _ in 0..ROUND {
            client.send(r#"{"type":"?"}"#).await;
        }
        for _ in 0..ROUND {
            assert_eq!(client.error_code().await, "invalid_type");
        }
        client.expect_silence().await;
    }
}

/// A long user name, which makes each of these lines long.
fn long_name() -> String {
    "a".repeat(250)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_the_log_that_stalls_holds_up_no_client_and_no_drain() {
    let mut server = talkative().await;
    let mut ann = server.client(&long_name()).await;
    server.let_log_reader(LogReader::Stalls);
    overflow(&server, &mut ann).await;
    let mut bob = server.reachable("bob").await;
    ann.send(r#"{"type":"chat_message","receiverId":"bob","payload":"still here"}"#)
        .await;
    assert_eq!(bob.json().await["payload"], "still here");
    assert_eq!(server.get("/ready").await.0, 200);
    server.signal(Signal::TERM);
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.closed().await, 4000);
        client.frame().await;
    }
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_reader_that_resumes_sees_the_number_of_lost_lines() {
    let mut server = talkative().await;
    let mut ann = server.client(&long_name()).await;
    server.let_log_reader(LogReader::Stalls);
    overflow(&server, &mut ann).await;
    server.let_log_reader(LogReader::Reads);
    let line = server.until_log(SUMMARY).await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("it is JSON like the others");
    assert_eq!(
        (&line["level"], &line["target"]),
        (&"WARN".into(), &"signalbox::log".into())
    );
    server.signal(Signal::TERM);
    ann.closed().await;
    ann.frame().await;
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(
        server.log().iter().any(|line| line.contains("\"stopped\"")),
        "what came afterwards is written"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_the_log_that_leaves_ends_no_server() {
    let mut server = talkative().await;
    let mut ann = server.client(&long_name()).await;
    server.let_log_reader(LogReader::Leaves);
    overflow(&server, &mut ann).await;
    server.signal(Signal::TERM);
    assert_eq!(ann.closed().await, 4000);
    ann.frame().await;
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_failed_start_ends_even_if_its_log_is_not_read() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let dir = folder(&[]);
    let (mut server, _log) = launch_with_full_log(dir.path(), &[("WSS_PORT", &port)]);
    let ended = timeout(PATIENCE, server.wait()).await;
    let status = ended
        .expect("the server ends")
        .expect("the exit status is known");
    assert_eq!(status.code(), Some(1));
}

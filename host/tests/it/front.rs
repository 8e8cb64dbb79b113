//! Limits on unauthenticated clients: sockets, headers, unread responses.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    harness::{Endpoint, Node, PATIENCE, to_end},
    raw::upgrade_head,
};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn refused(reason: &str) -> String {
    format!("wss_http_refused_total{{reason=\"{reason}\"}} ")
}

/// A keep-alive connection on which one request was answered.
async fn kept(node: &Endpoint) -> TcpStream {
    let mut stream = node.tcp().await;
    ask(&mut stream).await;
    stream
}

/// Sends a request on a keep-alive connection, and reads the response.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(HEALTH.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        answer.push(byte.expect("an answer").expect("a complete answer"));
    }
}

async fn is_over(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // The end, or a reset.
    let _ = ended.expect("the connection is ended");
}

#[tokio::test]
async fn over_sockets_pending_max_the_socket_that_is_silent_longest_is_closed_and_everybody_is_served()
 {
    let node = Node::start("[limits]\nsockets_pending_max = 3").await;
    let mut silent = Vec::new();
    for index in 0..10 {
        let mut stream = node.tcp().await;
        if index % 2 == 0 {
            // An unfinished header counts as idle too.
            stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        }
        silent.push(stream);
    }
    assert_eq!(node.get("/health").await.0, 200);
    let mut ann = node.client("ann").await;
    ann.expect_silence().await;
    for stream in &mut silent[..7] {
        is_over(stream).await;
    }
    node.until_metric(&refused("sockets"), |closed| closed >= 7.0)
        .await;
    // WebSockets do not count towards this limit.
    let mut many = Vec::new();
    for user in 0..10 {
        many.push(node.client(&format!("user-{user}")).await);
    }
    ann.expect_silence().await;
    many[0].expect_silence().await;
}

#[tokio::test]
async fn a_header_over_the_limit_gets_431_and_one_of_the_limit_is_read() {
    let node = Node::start("[limits]\nhttp_header_bytes_max = \"4KiB\"").await;
    let head = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: ";
    let of = |bytes: usize| format!("{head}{}\r\n\r\n", "x".repeat(bytes - head.len() - 4));
    assert!(node.raw(&of(4 << 10)).await.starts_with("HTTP/1.1 200 "));
    for long in [(4 << 10) + 1, 12 << 10, 400 << 10] {
        // Whether the header arrives at once or never ends.
        assert!(
            node.raw(&of(long)).await.starts_with("HTTP/1.1 431 "),
            "{long}"
        );
    }
    let endless = format!("{head}{}", "x".repeat(400 << 10));
    assert!(node.raw(&endless).await.starts_with("HTTP/1.1 431 "));
    node.until_metric(&refused("malformed"), |count| count == 4.0)
        .await;
}

#[tokio::test]
async fn headers_must_be_complete_in_time_from_their_first_byte_and_get_408() {
    let node =
        Node::start("[limits]\nhttp_header_time_max = \"300ms\"\nupgrade_timeout = \"300s\"").await;
    let mut silent = node.tcp().await;
    let mut half = node.tcp().await;
    half.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    assert!(to_end(&mut half).await.starts_with("HTTP/1.1 408 "));
    let mut dripping = node.tcp().await;
    dripping
        .write_all(b"GET /health HTTP/1.1\r\nX: ")
        .await
        .unwrap();
    let drip = async {
        let mut answer = [0; 12];
        loop {
            tokio::select! {
                read = dripping.read_exact(&mut answer) => return read.map(|_| answer),
                () = sleep(Duration::from_millis(10)) => drop(dripping.try_write(b"x")),
            }
        }
    };
    let answer = timeout(PATIENCE, drip)
        .await
        .expect("it is answered in time")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    // A connection without a first byte has not started its header time, and is still served.
    ask(&mut silent).await;
    node.until_metric(&refused("slow_header"), |count| count == 2.0)
        .await;
}

#[tokio::test]
async fn a_connection_is_kept_for_the_idle_time_and_not_for_the_upgrades() {
    let node =
        Node::start("[limits]\nupgrade_timeout = \"100ms\"\nhttp_header_time_max = \"200ms\"")
            .await;
    let mut backend = kept(&node).await;
    for _ in 0..3 {
        // Longer than either of these limits: they must not apply to an idle connection.
        sleep(Duration::from_millis(400)).await;
        ask(&mut backend).await;
    }
    // The time for the headers begins with the first byte.
    backend.write_all(b"GET /he").await.unwrap();
    assert!(to_end(&mut backend).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_without_a_reset() {
    let node = Node::start("[limits]\nhttp_idle_timeout = \"100ms\"").await;
    let mut backend = kept(&node).await;
    assert_eq!(to_end(&mut backend).await, "");
}

#[tokio::test]
async fn a_request_behind_another_has_the_time_of_headers_too() {
    let node =
        Node::start("[limits]\nhttp_header_time_max = \"200ms\"\nhttp_idle_timeout = \"300s\"")
            .await;
    let answers = node.raw(&format!("{HEALTH}GET /health HT")).await;
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 408 "), "{answers}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let node = Node::start("").await;
    let requests =
        HEALTH.repeat(20) + "GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answers = node.raw(&requests).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 20);
    assert_eq!(answers.matches("HTTP/1.1 404 Not Found").count(), 1);
}

#[tokio::test]
async fn the_last_request_of_a_connection_is_answered_with_close() {
    let node = Node::start("[limits]\nhttp_requests_per_connection_max = 3").await;
    let answers = node.raw(&HEALTH.repeat(5)).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(
        answers.to_lowercase().matches("connection: close").count(),
        1
    );
    // The last request may be an upgrade.
    let mut stream = node.tcp().await;
    let upgrade = upgrade_head("/ws?userId=ann");
    let requests = format!("{HEALTH}{HEALTH}{upgrade}\r\n");
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    while !String::from_utf8_lossy(&answers).contains("101 Switching Protocols") {
        answers.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn unread_answers_end_the_connection_and_are_discarded() {
    let node = Node::start("[limits]\nhttp_write_timeout = \"200ms\"").await;
    let mut deaf = node.tcp().await;
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(900);
    deaf.write_all(requests.as_bytes()).await.unwrap();
    node.until_metric(&refused("unread"), |count| count == 1.0)
        .await;
    // The server discards what it could not send: the connection is reset instead of lingering in the kernel.
    let mut answers = Vec::new();
    let end = timeout(PATIENCE, deaf.read_to_end(&mut answers)).await;
    assert!(end.expect("it ends").is_err(), "{} bytes", answers.len());
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_is_served_to_the_end() {
    let node = Node::start("[limits]\nhttp_write_timeout = \"2s\"").await;
    let mut slow = node.tcp().await;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let requests =
        request.repeat(99) + &request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    slow.write_all(requests.as_bytes()).await.unwrap();
    let (mut answers, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        match timeout(PATIENCE, slow.read(&mut buffer))
            .await
            .unwrap()
            .unwrap()
        {
            0 => break,
            read => answers.extend_from_slice(&buffer[..read]),
        }
        sleep(Duration::from_millis(5)).await;
    }
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 100);
}

#[tokio::test]
async fn a_changed_limit_holds_for_the_next_request() {
    let node = Node::start("[limits]\nhttp_idle_timeout = \"300s\"").await;
    let mut backend = kept(&node).await;
    node.replace("platform.toml", b"[limits]\nhttp_idle_timeout = \"50ms\"");
    let closes = async {
        loop {
            let mut other = kept(&node).await;
            let mut byte = [0];
            // Before the change it is kept open longer than this.
            if let Ok(Ok(0)) = timeout(Duration::from_secs(1), other.read(&mut byte)).await {
                return;
            }
        }
    };
    timeout(PATIENCE, closes).await.expect("the change holds");
    // The older connection picks the change up with its next request.
    ask(&mut backend).await;
    is_over(&mut backend).await;
}

//! File descriptors: every connection uses one, and their number is limited.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    harness::{PATIENCE, folder},
    logged::{Logged, message},
};

/// A server with these limits on open files.
async fn limited(soft: u32, hard: u32, config: &str) -> Logged {
    let limits = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\"");
    let through = ["sh", "-c", &limits, "sh"].map(str::to_owned).to_vec();
    Logged::start_through(through, folder(&[]), config).await
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let server = limited(64, 512, "").await;
    let line = server
        .until_line(|line| message(line).contains("open files"))
        .await;
    assert!(line.to_string().contains("512"), "{line}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3));
    assert_eq!(soft, Some("512"));
}

#[tokio::test]
async fn when_descriptors_run_out_clients_are_refused_and_do_not_hang() {
    let server = limited(
        96,
        96,
        "[limits]\nupgrade_timeout = \"300s\"\nhttp_idle_timeout = \"300s\"",
    )
    .await;
    let mut clients = Vec::new();
    let refused = loop {
        let mut stream = server.tcp().await;
        let request = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = timeout(PATIENCE, stream.read(&mut answer)).await;
        let read = read
            .expect("no task hangs")
            .expect("no reset before the answer");
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        if !answer.starts_with("HTTP/1.1 200 ") {
            break answer;
        }
        clients.push(stream);
        assert!(clients.len() < 96, "there is no limit");
    };
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("Retry-After: "), "{refused}");
    server
        .until_line(|line| message(line).contains("raise the limit of open files"))
        .await;
    // Existing connections stay, and those that close make room.
    clients.truncate(clients.len() / 2);
    server
        .until_metric("wss_http_refused_total{reason=\"descriptors\"} ", |count| {
            count >= 1.0
        })
        .await;
}

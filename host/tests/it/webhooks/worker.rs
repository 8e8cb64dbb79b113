//! The example of a receiver, `examples/workers/receive_webhooks.py`.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use super::receiver::SECRET;
use crate::harness::{Answer, Endpoint, Node, PATIENCE};

/// A running receiver; it ends when this is dropped.
struct Worker {
    endpoint: Endpoint,
    events: Lines<BufReader<ChildStdout>>,
    _errors: Lines<BufReader<ChildStderr>>,
    _process: Child,
}

impl Worker {
    async fn start(previous: &str) -> Self {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/workers/receive_webhooks.py");
        let mut process = Command::new("python3")
            .arg(script)
            .args(["127.0.0.1", "0"])
            .env("SIGNALBOX_WEBHOOK_SECRET", SECRET)
            .env("SIGNALBOX_WEBHOOK_SECRET_PREVIOUS", previous)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 is there");
        let mut errors = BufReader::new(process.stderr.take().expect("its errors")).lines();
        let line = timeout(PATIENCE, errors.next_line())
            .await
            .expect("it starts");
        let line = line.expect("text").expect("a line");
        let port = line
            .strip_prefix("listening on port ")
            .unwrap_or_else(|| panic!("{line}"));
        let events = BufReader::new(process.stdout.take().expect("its output")).lines();
        Self {
            endpoint: Endpoint {
                address: format!("127.0.0.1:{port}").parse().expect("an address"),
            },
            events,
            _errors: errors,
            _process: process,
        }
    }

    /// The next event that it prints.
    async fn event(&mut self) -> Value {
        let line = timeout(PATIENCE, self.events.next_line())
            .await
            .expect("an event");
        serde_json::from_str(&line.expect("text").expect("a line")).expect("JSON")
    }

    /// The answer to `body`, signed with `secret` at a time.
    async fn post(&self, secret: &str, time: SystemTime, body: &str) -> Answer {
        let timestamp = time
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{timestamp}.{body}").as_bytes());
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let head = format!(
            "POST / HTTP/1.1\r\nContent-Length: {}\r\nSignalbox-Timestamp: {timestamp}\r\nSignalbox-Signature: v1=00,v1={hex}",
            body.len()
        );
        self.endpoint.http_with_body(&head, body).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_a_receiver_gets_the_events_of_a_server() {
    let mut worker = Worker::start("").await;
    let address = worker.endpoint.address;
    let config = format!(
        "[[webhooks]]\nurl = \"http://{address}/\"\nsecret = \"{SECRET}\"\nevents = [\"connected\", \"disconnected\"]\n\
         batch_time = \"10ms\"\ntimeout = \"60s\"\n"
    );
    let node = Node::start(&config).await;
    node.client("ann").await.close().await;
    let types = [worker.event().await, worker.event().await];
    let types = types.map(|event| event["type"].as_str().expect("a type").to_owned());
    assert_eq!(types, ["connected", "disconnected"]);
    node.until_metric(
        "wss_webhook_events_sent_total{webhook=\"127.0.0.1\"}",
        |sent| sent == 2.0,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_receiver_accepts_fresh_signatures_and_handles_each_event_once() {
    const PREVIOUS: &str = "past-past-past-past-past-past-past";
    let mut worker = Worker::start(PREVIOUS).await;
    let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
    let body = |ids: &[&str]| {
        let events: Vec<String> = ids.iter().map(|id| format!("{{\"id\":{id:?}}}")).collect();
        format!("{{\"id\":\"b\",\"events\":[{}]}}", events.join(","))
    };
    for (secret, time, status) in [
        (SECRET, now, 200),
        (PREVIOUS, now, 200),
        ("another", now, 401),
        (SECRET, now - 6 * minute, 401),
        (SECRET, now + 6 * minute, 401),
    ] {
        let answer = worker.post(secret, time, &body(&["1", "2"])).await;
        assert_eq!(answer.status, status, "{secret} {time:?}");
    }
    assert_eq!(
        worker.post(SECRET, now, &body(&["2", "3"])).await.status,
        200
    );
    for id in ["1", "2", "3"] {
        assert_eq!(worker.event().await["id"], id);
    }
    for head in [
        "POST / HTTP/1.1\r\nContent-Length: 2",
        "POST / HTTP/1.1\r\nContent-Length: 2\r\nSignalbox-Timestamp: now\r\nSignalbox-Signature: v1=00",
    ] {
        assert_eq!(worker.endpoint.http_with_body(head, "{}").await.status, 401);
    }
}

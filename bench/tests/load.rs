//! Tests the load generator against the relay in the same process, and against servers that misbehave on purpose.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use signalbox_bench::frame::{Opcode, Writer, close_payload, next_frame, put_server_frame};
use signalbox_bench::load::{LoadError, Mode, Plan, Report, Site, Target, run};
use signalbox_bench::{handshake, relay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

fn plan(address: SocketAddr, mode: Mode) -> Plan {
    Plan {
        sites: vec![Site {
            address,
            host: address.to_string(),
            path: "/ws".to_owned(),
        }],
        target: Target::Relay,
        mode,
        warmup: Duration::from_millis(50),
        duration: Duration::from_millis(250),
        until_input_ends: false,
        payload_bytes: 128,
        acks: false,
        cpu_pids: vec![std::process::id()],
        user_prefix: "test".to_owned(),
    }
}

async fn against_relay(mode: Mode) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(relay::serve(listener));
    let report = run(&plan(address, mode))
        .await
        .expect("the run ends with a report");
    assert!(report.is_clean(), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_keep_their_messages_in_flight_and_lose_none() {
    let report = against_relay(Mode::Pairs {
        pairs: 5,
        in_flight: 8,
    })
    .await;
    assert_eq!((report.mode.as_str(), report.connections), ("pairs", 10));
    // The first window alone is 80 messages, so the loop must have gone round.
    assert!(report.delivered > 800, "{report}");
    // Messages sent before and after the measured time are counted too.
    assert!(report.sent_in_all >= report.sent + 80, "{report}");
    let latency = report.latency;
    assert!(latency.count > 0 && latency.p50_us > 0.0);
    assert!(latency.p50_us <= latency.p99_us && latency.p99_us <= latency.max_us);
    assert!(report.server_cpu_seconds.is_some() && report.rss_per_connection_bytes.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_open_loop_sends_at_its_rate() {
    let report = against_relay(Mode::Open {
        connections: 20,
        rate: 2000.0,
    })
    .await;
    let due = 2000.0 * report.measured_seconds;
    let sent = report.sent as f64;
    // A busy machine delays the measuring task and the pacing thread relative to each other, by far less than half the
    // time.
    assert!((due * 0.5..due * 1.5).contains(&sent), "{sent} of {due}");
    assert!(report.latency.count > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_delivers_each_message_to_every_member() {
    let report = against_relay(Mode::Room {
        members: 30,
        rate: 100.0,
    })
    .await;
    assert!(report.sent > 0);
    assert!(report.delivered >= report.sent * 25, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_held_and_their_memory_is_read() {
    let report = against_relay(Mode::Idle { connections: 50 }).await;
    assert_eq!((report.sent, report.delivered), (0, 0));
    assert!(report.rss_after_bytes.is_some() && report.rss_per_connection_bytes.is_some());
}

#[tokio::test]
async fn a_report_survives_json() {
    let report = against_relay(Mode::Pairs {
        pairs: 1,
        in_flight: 1,
    })
    .await;
    let json = serde_json::to_string(&report).expect("a report is plain data");
    let back: Report = serde_json::from_str(&json).expect("the same type");
    assert_eq!(back.delivered, report.delivered);
}

#[tokio::test]
async fn a_payload_without_room_for_the_numbers_never_reaches_the_server() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let small = Plan {
        payload_bytes: 20,
        ..plan(
            nobody,
            Mode::Pairs {
                pairs: 1,
                in_flight: 1,
            },
        )
    };
    assert!(matches!(
        run(&small).await,
        Err(LoadError::PayloadTooSmall { .. })
    ));
}

#[tokio::test]
async fn a_refused_upgrade_is_told_with_its_status() {
    let address = serve(|mut stream| async move {
        let mut request = [0; 1024];
        let read = stream.read(&mut request).await;
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        read.and(stream.write_all(refusal).await)
    })
    .await;
    let error = run(&plan(address, Mode::Idle { connections: 1 }))
        .await
        .expect_err("no connection was opened");
    assert!(
        error.to_string().contains("503 Service Unavailable"),
        "{error}"
    );
}

/// Two senders keep 8 messages in flight each. The server forwards them, but on each connection it drops the second
/// one, sends the third twice and swaps the fifth and the sixth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_duplicated_and_reordered_messages_are_found() {
    let report = against_server(
        Mode::Pairs {
            pairs: 1,
            in_flight: 8,
        },
        |number, frames| match number {
            1 => Vec::new(),
            2 => vec![frames[2].clone(), frames[2].clone()],
            4 => Vec::new(),
            5 => vec![frames[5].clone(), frames[4].clone()],
            other => vec![frames[other].clone()],
        },
    )
    .await;
    assert_eq!(
        (report.lost, report.duplicated, report.reordered),
        (2, 2, 2),
        "{report}"
    );
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_frames_are_counted_and_the_first_are_shown() {
    let error = br#"{"type":"error","payload":{"code":"rate_limited"}}"#.to_vec();
    let report = against_server(
        Mode::Pairs {
            pairs: 1,
            in_flight: 8,
        },
        move |_, _| vec![error.clone()],
    )
    .await;
    assert_eq!((report.errors, report.delivered, report.lost), (16, 0, 16));
    assert!(report.to_string().contains("rate_limited"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closes_early_is_told_with_its_code() {
    let address = serve(|mut stream| async move {
        handshake::accept(&mut stream)
            .await
            .map_err(std::io::Error::other)?;
        let mut close = Vec::new();
        put_server_frame(&mut close, Opcode::Close, &close_payload(4001));
        stream.write_all(&close).await
    })
    .await;
    let report = run(&plan(address, Mode::Idle { connections: 2 }))
        .await
        .expect("a report");
    assert_eq!(report.closed, 2);
    assert!(
        report.first_errors.iter().all(|text| text.contains("4001")),
        "{report}"
    );
}

/// Runs one pair against a server that passes the result of `answer` from each side to the other. `answer` gets the
/// number of a message on its connection, and all messages so far.
async fn against_server<F>(mode: Mode, answer: F) -> Report
where
    F: Fn(usize, &[Vec<u8>]) -> Vec<Vec<u8>> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        let (mut a, _) = listener.accept().await?;
        let rest_a = handshake::accept(&mut a)
            .await
            .map_err(std::io::Error::other)?
            .rest;
        let (mut b, _) = listener.accept().await?;
        let rest_b = handshake::accept(&mut b)
            .await
            .map_err(std::io::Error::other)?
            .rest;
        let ((read_a, write_a), (read_b, write_b)) = (a.into_split(), b.into_split());
        tokio::try_join!(
            forward(read_a, rest_a, write_b, &answer),
            forward(read_b, rest_b, write_a, &answer)
        )
    });
    run(&plan(address, mode)).await.expect("a report")
}

async fn forward<F>(
    mut from: OwnedReadHalf,
    mut bytes: Vec<u8>,
    mut to: OwnedWriteHalf,
    answer: &F,
) -> std::io::Result<()>
where
    F: Fn(usize, &[Vec<u8>]) -> Vec<Vec<u8>>,
{
    let mut messages: Vec<Vec<u8>> = Vec::new();
    loop {
        while let Some(frame) =
            next_frame(&mut bytes, 0, Writer::Client).map_err(std::io::Error::other)?
        {
            let (end, opcode, payload) = (frame.end, frame.opcode, frame.payload.to_vec());
            bytes.drain(..end);
            if opcode == Opcode::Close {
                return Ok(());
            }
            messages.push(payload);
            let mut out = Vec::new();
            for reply in answer(messages.len() - 1, &messages) {
                put_server_frame(&mut out, Opcode::Text, &reply);
            }
            to.write_all(&out).await?;
        }
        if from.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

async fn serve<F, S>(serve_one: F) -> SocketAddr
where
    F: Fn(TcpStream) -> S + Send + 'static,
    S: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_one(stream));
        }
    });
    address
}

//! Tests the load generator against the relay in the same process, and against servers that misbehave on purpose.

use std::net::SocketAddr;

use clap::Parser;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use signalbox_bench::load::{LoadArgs, Plan, Report, run};
use signalbox_bench::relay;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_async};

/// One pair, with 8 messages in flight from each side.
const PAIR: &str = "--pairs 1 --in-flight 8";

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    load: LoadArgs,
}

fn plan(address: SocketAddr, options: &str) -> Plan {
    let pid = std::process::id();
    let words = format!(
        "load --url ws://{address} --target relay --warmup 50ms --duration 250ms --hold 250ms --cpu-pid {pid} {options}"
    );
    let command = Command::try_parse_from(words.split(' ')).expect("the options parse");
    command.load.into_plan().expect("a plan")
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

async fn against_relay(options: &str) -> Report {
    let (listener, address) = listen().await;
    tokio::spawn(relay::serve(listener));
    let report = run(&plan(address, options))
        .await
        .expect("the run ends with a report");
    assert!(report.is_clean(), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_keep_their_messages_in_flight_and_lose_none() {
    let report = against_relay("--pairs 5 --in-flight 8").await;
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
    let report = against_relay("--connections 20 --rate 2000").await;
    let due = 2000.0 * report.measured_seconds;
    let sent = report.sent as f64;
    // A busy machine delays the measuring task and the pacing thread relative to each other, by far less than half the
    // time.
    assert!((due * 0.5..due * 1.5).contains(&sent), "{sent} of {due}");
    assert!(report.latency.count > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_delivers_each_message_to_every_member() {
    let report = against_relay("--room-members 30 --rate 100").await;
    assert!(report.sent > 0);
    assert!(report.delivered >= report.sent * 25, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_held_and_their_memory_is_read() {
    let report = against_relay("--connections 50").await;
    assert_eq!((report.sent, report.delivered), (0, 0));
    assert!(report.rss_after_bytes.is_some() && report.rss_per_connection_bytes.is_some());
}

#[tokio::test]
async fn a_report_survives_json() {
    let report = against_relay(PAIR).await;
    let json = serde_json::to_string(&report).expect("a report is plain data");
    let back: Report = serde_json::from_str(&json).expect("the same type");
    assert_eq!(back.delivered, report.delivered);
}

#[tokio::test]
async fn a_payload_without_room_for_the_numbers_never_reaches_the_server() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let small = plan(nobody, "--pairs 1 --payload 20");
    let error = run(&small).await.expect_err("it is too small");
    assert!(
        error.to_string().contains("--payload must be at least"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_upgrade_is_reported_with_its_status() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.read_buf(&mut Vec::with_capacity(1024)).await?;
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(refusal).await
    });
    let error = run(&plan(address, "--connections 1")).await;
    let error = format!("{:#}", error.expect_err("no connection was opened"));
    assert!(error.contains("503 Service Unavailable"), "{error}");
}

/// Two senders keep 8 messages in flight each. The server forwards them, but on each connection it drops the second
/// one, sends the third twice and swaps the fifth and the sixth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_duplicated_and_reordered_messages_are_found() {
    let report = against_server(|number, texts| match number {
        1 | 4 => Vec::new(),
        2 => vec![texts[2].clone(), texts[2].clone()],
        5 => vec![texts[5].clone(), texts[4].clone()],
        other => vec![texts[other].clone()],
    })
    .await;
    let found = (report.lost, report.duplicated, report.reordered);
    assert_eq!(found, (2, 2, 2), "{report}");
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_frames_are_counted_and_the_first_are_shown() {
    let error = Utf8Bytes::from_static(r#"{"type":"error","payload":{"code":"rate_limited"}}"#);
    let report = against_server(move |_, _| vec![error.clone()]).await;
    assert_eq!((report.errors, report.delivered, report.lost), (16, 0, 16));
    assert!(report.to_string().contains("rate_limited"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_close_is_reported_with_its_code() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let close = CloseFrame {
                code: 4001.into(),
                reason: "".into(),
            };
            accept_async(stream).await?.close(Some(close)).await?;
        }
        Ok::<_, tungstenite::Error>(())
    });
    let report = run(&plan(address, "--connections 2")).await;
    let report = report.expect("a report");
    assert_eq!(report.closed, 2);
    let mut errors = report.first_errors.iter();
    assert!(errors.all(|text| text.contains("4001")), "{report}");
}

/// Runs one pair against a server that passes the result of `answer` from each side to the other. `answer` gets the
/// number of a message on its connection, and all messages so far.
async fn against_server<F>(answer: F) -> Report
where
    F: Fn(usize, &[Utf8Bytes]) -> Vec<Utf8Bytes> + Send + Sync + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (write_a, read_a) = accept_async(listener.accept().await?.0).await?.split();
        let (write_b, read_b) = accept_async(listener.accept().await?.0).await?.split();
        tokio::try_join!(
            forward(read_a, write_b, &answer),
            forward(read_b, write_a, &answer)
        )
    });
    run(&plan(address, PAIR)).await.expect("a report")
}

type Socket = WebSocketStream<TcpStream>;

async fn forward<F>(
    mut from: SplitStream<Socket>,
    mut to: SplitSink<Socket, Message>,
    answer: &F,
) -> tungstenite::Result<()>
where
    F: Fn(usize, &[Utf8Bytes]) -> Vec<Utf8Bytes>,
{
    let mut texts = Vec::new();
    while let Some(message) = from.next().await.transpose()? {
        if let Message::Text(text) = message {
            texts.push(text);
            for reply in answer(texts.len() - 1, &texts) {
                to.send(Message::Text(reply)).await?;
            }
        }
    }
    Ok(())
}

//! The cases of the Autobahn test suite, run against the session socket behind a test-only echo.

use std::{
    collections::BTreeMap, fs, future::poll_fn, net::SocketAddr, path::Path, time::Duration,
};

use serde_json::Value;
use signalbox::{
    router::SocketSink,
    session::{Incoming, Socket, SocketError, TcpSocket},
    websocket::{self, DecodeError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::raw::{BINARY, FIN, TEXT};

/// All cases except those of compression.
const CASES: usize = 301;

/// The largest cases send 16 MiB.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Some cases echo megabytes in tiny fragments, and this is an unoptimised build.
const PATIENCE: Duration = Duration::from_secs(600);

/// Autobahn gives the server half a second to three seconds in most cases, and two fragments of a case follow each other
/// within a moment. A busy machine can be too late for that, so a case that fails runs again, alone, up to this many times. A
/// server that breaks the protocol fails each time.
const REPETITIONS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_autobahn_case_passes_strictly() {
    let address = echo_server().await;
    let all = ["-p", "4", "-x", "12.*", "-x", "13.*"];
    let mut failed = judge(address, &all).await;
    assert_eq!(failed.len(), CASES);
    failed.retain(|_, verdicts| !passed(verdicts));
    for _ in 0..REPETITIONS {
        for (case, verdicts) in &mut failed {
            let again = judge(address, &["-i", case]).await;
            *verdicts = again.into_values().next().expect("it ran");
        }
        failed.retain(|_, verdicts| !passed(verdicts));
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Informational cases only record the behaviour of a server, so any result passes.
fn passed(verdicts: &[String; 2]) -> bool {
    let passes = |verdict: &String| ["OK", "INFORMATIONAL"].contains(&verdict.as_str());
    verdicts.iter().all(passes)
}

/// Runs kosoku with these arguments. Returns the verdicts on each case: on the behaviour, and on the close.
async fn judge(address: SocketAddr, args: &[&str]) -> BTreeMap<String, [String; 2]> {
    let reports = tempfile::tempdir().expect("a folder for the reports");
    let kosoku = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/moto/bin/kosoku");
    let run = Command::new(kosoku)
        .args(args)
        .arg("-o")
        .arg(reports.path())
        .arg(address.to_string())
        .output();
    let output = timeout(PATIENCE, run)
        .await
        .expect("the cases come to their end")
        .expect("kosoku is there; `cargo xtask test` installs it");
    let mut judged = BTreeMap::new();
    for report in fs::read_dir(reports.path()).expect("reports are written") {
        let path = report.expect("a report").path();
        let name = path.to_string_lossy();
        let Some((_, case)) = name.split_once("_case_") else {
            continue;
        };
        let Some(case) = case.strip_suffix(".json") else {
            continue;
        };
        let report = fs::read_to_string(&path).expect("a report");
        let report: Value = serde_json::from_str(&report).expect("a report is JSON");
        let verdict = |of: &str| report[of].as_str().unwrap_or_default().to_owned();
        let verdicts = ["behavior", "behaviorClose"].map(verdict);
        judged.insert(case.replace('_', "."), verdicts);
    }
    assert!(
        !judged.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    judged
}

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Some(socket) = upgraded(stream).await {
                    echo(socket).await;
                }
            });
        }
    });
    address
}

/// The socket after its upgrade, or None if the request is not an upgrade.
async fn upgraded(mut stream: TcpStream) -> Option<TcpSocket> {
    stream.set_nodelay(true).ok()?;
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let key = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_key = name.eq_ignore_ascii_case("sec-websocket-key");
        is_key.then_some(value.trim())
    })?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    Some(TcpSocket::new(stream, &head[end..], MESSAGE_BYTES_MAX))
}

/// Echoes messages, and closes as sessions do.
async fn echo(mut socket: TcpSocket) {
    let sink = socket.take_sink().expect("the sink is still there");
    loop {
        let close = match poll_fn(|cx| socket.poll_read(cx)).await {
            Some(Ok(Incoming::Text(text))) => {
                write(&socket, &*sink, &frame(TEXT, text.as_bytes())).await;
                continue;
            }
            Some(Ok(Incoming::Binary(bytes))) => {
                write(&socket, &*sink, &frame(BINARY, &bytes)).await;
                continue;
            }
            Some(Ok(Incoming::Ping(payload))) => {
                write(&socket, &*sink, &websocket::pong(&payload)).await;
                continue;
            }
            Some(Ok(Incoming::Pong | Incoming::Fragment(_))) => continue,
            Some(Ok(Incoming::Close { code, .. })) => websocket::close(code, ""),
            Some(Err(SocketError::Unreadable(DecodeError::NotUtf8))) => websocket::close(1007, ""),
            Some(Err(SocketError::Unreadable(_))) => websocket::close(1002, ""),
            Some(Err(SocketError::Broken(_))) | None => return,
        };
        write(&socket, &*sink, &close).await;
        drop(sink);
        poll_fn(|cx| socket.poll_discard(cx)).await;
        return;
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    websocket::push_text_header(payload.len(), &mut frame);
    frame[0] = FIN | kind;
    frame.extend_from_slice(payload);
    frame
}

/// Writes all of `bytes`, unless the client has disconnected, which the next read reports.
async fn write(socket: &TcpSocket, sink: &dyn SocketSink, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match sink.try_write(bytes, &[]) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if poll_fn(|cx| socket.poll_room(cx)).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

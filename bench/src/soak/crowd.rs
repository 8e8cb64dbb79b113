//! The misbehaving clients: floods, frames over the limit, clients that do not read, silent sockets.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::Client;
use crate::frame::{OpCode, PING, TEXT};

/// Number of clients of each kind per node.
const PINGERS: usize = 2;
const SHOUTERS: usize = 2;
const SLOW_READERS: usize = 4;
const HALF_OPEN: usize = 100;

/// Frames per write of a flood.
const BURST: usize = 200;

/// Bytes that may be queued before a flood pauses, so that it floods the server and not itself.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// Starts misbehaving clients on all `nodes`. They run until the returned set is dropped.
pub(super) fn bother(nodes: &[SocketAddr]) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for node in nodes.iter().copied() {
        for number in 0..PINGERS {
            tasks.spawn(flood(node, format!("ping{number}"), PING, 8));
        }
        for number in 0..SHOUTERS {
            tasks.spawn(flood(node, format!("shout{number}"), TEXT, 55_000));
        }
        for number in 0..SLOW_READERS {
            tasks.spawn(read_nothing(node, number));
        }
        for number in 0..HALF_OPEN {
            tasks.spawn(say_nothing(node, number % 2 == 0));
        }
    }
    tasks
}

/// Sends frames as fast as the server takes them, and reconnects after being disconnected.
async fn flood(node: SocketAddr, user: String, opcode: OpCode, bytes: usize) {
    let payload = vec![b'x'; bytes];
    let burst = if bytes > 1000 { 4 } else { BURST };
    loop {
        if let Ok(mut client) = Client::connect(node, &user).await {
            loop {
                if client.pending_bytes() < PENDING_BYTES_MAX
                    && client.send_many(opcode, &payload, burst).is_err()
                {
                    break;
                }
                tokio::select! {
                    read = client.read() => if read.is_err() { break },
                    () = sleep(Duration::from_millis(1)) => {}
                }
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Connects a client that never reads, and keeps sending messages to it.
async fn read_nothing(node: SocketAddr, number: usize) {
    let user = format!("slow{number}");
    let text = "x".repeat(3000);
    let message = json!({"type": "chat_message", "receiverId": user, "payload": {"text": text}});
    loop {
        if let (Ok(_reader), Ok(mut sender)) = (
            Client::connect(node, &user).await,
            Client::connect(node, &format!("fast{number}")).await,
        ) {
            for _ in 0..2_000 {
                if sender.send(&message).is_err() {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Connects and sends nothing, or only part of a request.
async fn say_nothing(node: SocketAddr, begins: bool) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(node).await {
            if begins {
                let _ = stream.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nX-").await;
            }
            // Returns when the server answers or closes the connection.
            let _ = stream.readable().await;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

//! A WebSocket client that can follow the protocol or misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frame::{CLOSE, NORMAL_CLOSURE, OpCode, PING, PONG, TEXT, next_frame, put_client_frame};
use crate::handshake;
use crate::socket::{FrameReader, SharedWriter, split};

/// Upper bound of the bytes queued for a server that does not read.
const OUTBOX_BYTES_MAX: usize = 4 << 20;

/// Time limit for connecting, including the handshake.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// A frame from the server.
#[derive(Debug)]
pub(crate) enum Incoming {
    Text(Vec<u8>),
    Close,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    reader: FrameReader,
    writer: Arc<SharedWriter>,
}

impl Client {
    /// Connects as `user`, with the protocol of `websocket-app`.
    pub(crate) async fn connect(server: SocketAddr, user: &str) -> anyhow::Result<Self> {
        Self::connect_with(server, user, None).await
    }

    /// Connects as `user`, with the subprotocol `signalbox.v1`.
    pub(crate) async fn connect_v1(server: SocketAddr, user: &str) -> anyhow::Result<Self> {
        Self::connect_with(server, user, Some("signalbox.v1")).await
    }

    async fn connect_with(
        server: SocketAddr,
        user: &str,
        protocol: Option<&str>,
    ) -> anyhow::Result<Self> {
        let connected = timeout(CONNECT_TIME_MAX, async {
            let mut stream = TcpStream::connect(server).await?;
            let (host, target) = (server.to_string(), format!("/ws?userId={user}"));
            let rest = handshake::request(&mut stream, &host, &target, protocol).await?;
            let (reader, writer) = split(stream, rest, OUTBOX_BYTES_MAX)?;
            anyhow::Ok(Self { reader, writer })
        });
        connected.await.context("no answer in time")?
    }

    /// Sends a JSON text. An error means that the connection is over.
    pub(crate) fn send(&mut self, text: &Value) -> anyhow::Result<()> {
        self.send_many(TEXT, text.to_string().as_bytes(), 1)
    }

    /// Sends `count` identical frames with one write. An error means that the connection is over.
    pub(crate) fn send_many(
        &mut self,
        opcode: OpCode,
        payload: &[u8],
        count: usize,
    ) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            put_client_frame(&mut bytes, opcode, payload);
        }
        self.writer.send(&bytes)
    }

    /// Asks the server to close, like a client that moves to another node.
    pub(crate) fn send_close(&mut self) -> anyhow::Result<()> {
        self.send_many(CLOSE, &NORMAL_CLOSURE, 1)
    }

    /// Bytes that the server has not accepted yet.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.writer.pending_bytes()
    }

    /// Reads the next frames and answers pings. An error means that the connection is over.
    pub(crate) async fn read(&mut self) -> anyhow::Result<Vec<Incoming>> {
        let mut pings = Vec::new();
        let read = self.reader.read_with(|bytes| take(bytes, &mut pings)).await;
        let frames = read?.context("the connection was lost")?;
        for ping in pings {
            self.send_many(PONG, &ping, 1)?;
        }
        frames
    }
}

/// Extracts the complete frames from `bytes` and returns how many bytes were consumed.
fn take(bytes: &[u8], pings: &mut Vec<Vec<u8>>) -> (usize, anyhow::Result<Vec<Incoming>>) {
    let mut frames = Vec::new();
    let mut at = 0;
    loop {
        match next_frame(bytes, at) {
            Ok(Some(frame)) => {
                at = frame.end;
                match frame.opcode {
                    TEXT => frames.push(Incoming::Text(frame.payload.to_vec())),
                    PING => pings.push(frame.payload.to_vec()),
                    CLOSE => frames.push(Incoming::Close),
                    _ => {}
                }
            }
            Ok(None) => return (at, Ok(frames)),
            Err(error) => return (at, Err(error)),
        }
    }
}

//! Bursts in a room: its members come back all at once after their node died, or all of them join at once.
//!
//! Unlike [`load`](crate::load), which measures a steady state, each run here is one event: it measures the time until every client
//! has everything, and the cost for the server and Redis. Each client checks what it gets.

mod presence;
mod recovery;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

pub use self::presence::PresenceArgs;
pub use self::recovery::RecoveryArgs;
use crate::client::{Client, Incoming};
use crate::exchange::redis_calls;
use crate::process::usage;

/// The room of all clients.
const ROOM: &str = "bench";

/// Time limit for everything that a client waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of clients that connect at a time before a measurement.
const CONNECTING: usize = 100;

/// Pause before the next attempt to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A client in the room, or about to join it.
struct Member {
    client: Client,
    /// Frames that were read and not taken yet.
    frames: std::vec::IntoIter<Incoming>,
    /// The bytes of all frames so far.
    bytes: u64,
}

impl Member {
    /// Connects as `user`; tries again until the server accepts it.
    async fn connect(server: SocketAddr, user: &str) -> anyhow::Result<Self> {
        let began = Instant::now();
        loop {
            match Client::connect_v1(server, user).await {
                Ok(client) => {
                    return Ok(Self {
                        client,
                        frames: Vec::new().into_iter(),
                        bytes: 0,
                    });
                }
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// Sends a frame with the `id` that its answer has.
    fn send(&mut self, kind: &str, payload: &Value) -> anyhow::Result<()> {
        let client = &mut self.client;
        client.send(&json!({"type": kind, "room": ROOM, "id": kind, "payload": payload}))
    }

    /// Joins the room, and returns the `payload` of the `ack`.
    async fn join(&mut self, payload: &Value) -> anyhow::Result<Value> {
        self.send("join", payload)?;
        loop {
            let mut frame = self.next().await?;
            match frame["type"].as_str() {
                Some("ack") => return Ok(frame["payload"].take()),
                Some("error") => bail!("a join got {frame}"),
                _ => {}
            }
        }
    }

    /// The next frame.
    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            match self.frames.next() {
                Some(Incoming::Text(text)) => {
                    self.bytes += text.len() as u64;
                    return Ok(serde_json::from_slice(&text)?);
                }
                Some(Incoming::Close) => bail!("the server closed a connection"),
                None => {
                    let frames = timeout(PATIENCE, self.client.read()).await;
                    self.frames = frames.context("a frame did not come")??.into_iter();
                }
            }
        }
    }
}

/// Connects `count` clients, some of them at a time.
async fn connect(server: SocketAddr, count: usize) -> anyhow::Result<Vec<Member>> {
    let connecting = (0..count).map(|index| async move {
        let user = format!("member{index}");
        Member::connect(server, &user).await
    });
    stream::iter(connecting)
        .buffered(CONNECTING)
        .try_collect()
        .await
}

/// The cost of a burst.
#[derive(Debug, Clone, Serialize)]
pub struct BurstReport {
    /// The number of clients.
    clients: usize,
    /// From the beginning until the last client had everything.
    milliseconds: f64,
    /// CPU time of the server.
    server_cpu_seconds: f64,
    /// Bytes of the frames that the clients got.
    bytes: u64,
    /// Frames that the clients got and counted.
    frames: u64,
    /// Commands that Redis carried out; absent without Redis.
    redis_commands: Option<u64>,
    /// Reads of histories in Redis; absent without Redis.
    redis_reads: Option<u64>,
}

/// Measures a burst.
struct Meter {
    pid: u32,
    redis: Option<SocketAddr>,
    cpu_seconds: f64,
    calls: BTreeMap<String, u64>,
    began: Instant,
}

impl Meter {
    async fn start(pid: u32, redis: Option<SocketAddr>) -> anyhow::Result<Self> {
        Ok(Self {
            pid,
            redis,
            cpu_seconds: usage(pid)?.cpu_seconds,
            calls: match redis {
                Some(redis) => redis_calls(redis).await?,
                None => BTreeMap::new(),
            },
            began: Instant::now(),
        })
    }

    /// Ends the measurement. Each client has `bytes` and a number of frames.
    async fn stop(self, clients: &[(u64, u64)]) -> anyhow::Result<BurstReport> {
        let milliseconds = self.began.elapsed().as_secs_f64() * 1e3;
        let server_cpu_seconds = usage(self.pid)?.cpu_seconds - self.cpu_seconds;
        let mut report = BurstReport {
            clients: clients.len(),
            milliseconds,
            server_cpu_seconds,
            bytes: clients.iter().map(|(bytes, _)| bytes).sum(),
            frames: clients.iter().map(|(_, frames)| frames).sum(),
            redis_commands: None,
            redis_reads: None,
        };
        if let Some(redis) = self.redis {
            let calls = redis_calls(redis).await?;
            let since = |command: &str| {
                let count = |calls: &BTreeMap<String, u64>| calls.get(command).copied();
                count(&calls).unwrap_or_default() - count(&self.calls).unwrap_or_default()
            };
            report.redis_reads = Some(since("xrange") + since("xrevrange"));
            // The statistics themselves do not count.
            let others = calls.keys().filter(|command| *command != "info");
            report.redis_commands = Some(others.map(|command| since(command)).sum());
        }
        Ok(report)
    }
}

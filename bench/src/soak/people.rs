//! The well-behaved clients: each talks to one other, moves between nodes, and reconnects at once after a close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ledger::Ledger;
use crate::client::{Client, Incoming};

/// Pause between two messages of a client.
const SEND_INTERVAL: Duration = Duration::from_secs(2);

/// How long a client waits for the answer to a message before it sends the next one.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// How long a client stays on one node before it moves on its own. A part that depends on its number is added.
const STAY: Duration = Duration::from_secs(60);

/// Pause before the next connection attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Time limit for the server to answer a close.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(6);

/// Shared by all clients.
#[derive(Debug)]
pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) nodes: Vec<SocketAddr>,
    pub(super) began: Instant,
    /// Whether latencies count for the quiet phase.
    pub(super) is_quiet: AtomicBool,
    /// Whether latencies are not counted.
    pub(super) is_outage: AtomicBool,
    /// Whether sending has stopped.
    pub(super) is_silent: AtomicBool,
    /// Changed to make a tenth of the clients move at once.
    pub(super) wave: watch::Sender<usize>,
}

impl World {
    /// Milliseconds since the beginning.
    pub(super) fn now_ms(&self) -> u32 {
        self.began.elapsed().as_millis() as u32
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

/// A well-behaved client. Ends with its task.
pub(super) struct Person {
    world: Arc<World>,
    number: usize,
    /// The message that has not been answered yet, and when it was sent.
    open: Option<(usize, Instant)>,
    send_at: Instant,
}

#[derive(Deserialize)]
struct Frame<'a> {
    r#type: &'a str,
    #[serde(rename = "senderId", default)]
    sender: &'a str,
    payload: Payload<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload<'a> {
    id: Option<&'a str>,
    status: &'a str,
    text: &'a str,
}

impl Person {
    pub(super) fn new(world: Arc<World>, number: usize) -> Self {
        let spread = SEND_INTERVAL.mul_f64(number as f64 % 97.0 / 97.0);
        Self {
            world,
            number,
            open: None,
            send_at: Instant::now() + spread,
        }
    }

    /// Runs until its task is aborted.
    pub(super) async fn live(mut self) {
        let mut place = self.number;
        let mut waves = self.world.wave.subscribe();
        loop {
            let server = self.world.nodes[place % self.world.nodes.len()];
            match Client::connect(server, &format!("u{}", self.number)).await {
                Ok(mut client) => {
                    if self.serve(&mut client, &mut waves).await {
                        self.leave(&mut client).await;
                    }
                }
                Err(_) => sleep(RETRY_PAUSE).await,
            }
            // The sender never learns the fate of an unanswered message.
            self.open = None;
            place += 1;
        }
    }

    /// Serves one connection. Returns `true` once the client wants to move, and `false` if the server closed the connection
    /// or it was lost.
    async fn serve(&mut self, client: &mut Client, waves: &mut watch::Receiver<usize>) -> bool {
        let came_us = self.world.now_us();
        let stay = STAY + STAY.mul_f64((self.number * 37 % 101) as f64 / 101.0);
        let leave_at = Instant::now() + stay;
        loop {
            tokio::select! {
                frames = client.read() => {
                    let Ok(frames) = frames else { return false };
                    if self.take(frames, came_us) {
                        return false;
                    }
                }
                () = sleep_until(self.send_at) => {
                    if self.send(client).is_err() {
                        return false;
                    }
                }
                () = sleep_until(leave_at) => return true,
                Ok(()) = waves.changed() => {
                    let wave = *waves.borrow_and_update();
                    if self.number % 10 == wave % 10 {
                        return true;
                    }
                }
            }
        }
    }

    /// Closes the connection, and handles the frames that still arrive.
    async fn leave(&mut self, client: &mut Client) {
        if client.send_close().is_err() {
            return;
        }
        let rest = async {
            while let Ok(frames) = client.read().await {
                if self.take(frames, u64::MAX) {
                    return;
                }
            }
        };
        let _ = timeout(CLOSE_TIME_MAX, rest).await;
    }

    fn send(&mut self, client: &mut Client) -> anyhow::Result<()> {
        self.send_at = Instant::now() + SEND_INTERVAL;
        let waits = self
            .open
            .is_some_and(|(_, at)| at.elapsed() < ANSWER_TIME_MAX);
        if waits || self.world.is_silent.load(Ordering::Relaxed) {
            return Ok(());
        }
        let number = self.world.ledger.begin(self.number);
        self.open = Some((number, Instant::now()));
        let message = json!({
            "type": "chat_message",
            "receiverId": format!("u{}", self.number ^ 1),
            "id": number.to_string(),
            "payload": {"text": format!("{number} {}", self.world.now_us())},
        });
        client.send(&message)
    }

    /// Handles frames, and returns whether the server closes the connection. `came_us` is the time at which the
    /// connection started, in microseconds.
    fn take(&mut self, frames: Vec<Incoming>, came_us: u64) -> bool {
        for frame in frames {
            match frame {
                Incoming::Close => return true,
                Incoming::Text(text) => {
                    if let Ok(frame) = serde_json::from_slice::<Frame<'_>>(&text) {
                        self.take_frame(&frame, came_us);
                    }
                }
            }
        }
        false
    }

    fn take_frame(&mut self, frame: &Frame<'_>, came_us: u64) {
        let world = &self.world;
        match frame.r#type {
            "ack" | "error" => {
                let id = frame.payload.id.and_then(|id| id.parse().ok());
                if let Some((number, _)) = self.open
                    && id == Some(number)
                {
                    let is_delivered = frame.payload.status == "delivered";
                    let ms = is_delivered.then(|| world.now_ms());
                    world.ledger.answered(self.number, number, ms);
                    self.open = None;
                }
            }
            "chat_message" => {
                let sender = frame.sender.strip_prefix('u').and_then(|n| n.parse().ok());
                let Some((number, sent_us)) = frame.payload.text.split_once(' ') else {
                    return;
                };
                let (Some(sender), Ok(number), Ok(sent_us)) =
                    (sender, number.parse(), sent_us.parse::<u64>())
                else {
                    return;
                };
                world.ledger.came(sender, number);
                // The latency of a message that waited for its receiver says nothing about the server.
                if sent_us >= came_us && !world.is_outage.load(Ordering::Relaxed) {
                    let quiet = world.is_quiet.load(Ordering::Relaxed);
                    world.ledger.took(world.now_us() - sent_us, quiet);
                }
            }
            _ => {}
        }
    }
}

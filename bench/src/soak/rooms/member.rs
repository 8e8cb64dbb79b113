//! A member of a room, which reconnects at random and catches up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::RoomWorld;
use crate::client::{Client, Incoming};

/// Pause between two messages of a member.
const SEND_INTERVAL: Duration = Duration::from_millis(500);

/// How long a member stays connected: from the first on, up to the sum of both.
const STAY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));

/// Pause before the next attempt to connect or to join.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A member. Ends with its task.
pub(super) struct Member {
    world: Arc<RoomWorld>,
    number: u64,
    room: u64,
    /// The epoch and the number of the last message that it got.
    place: Option<(String, u64)>,
    /// Whether the room was joined on this connection.
    is_joined: bool,
    /// When to send the next `join`, if one is due.
    join_at: Option<Instant>,
    sent: u64,
    /// The message whose answer is awaited.
    open: Option<String>,
    send_at: Instant,
}

impl Member {
    pub(super) fn new(world: Arc<RoomWorld>, number: u64, room: u64) -> Self {
        Self {
            world,
            number,
            room,
            place: None,
            is_joined: false,
            join_at: None,
            sent: 0,
            open: None,
            send_at: Instant::now(),
        }
    }

    /// Runs until its task is aborted.
    pub(super) async fn live(mut self) {
        loop {
            let node = self.world.nodes[fastrand::usize(..self.world.nodes.len())];
            // Ends by itself, by the server, or because a failure broke it: all are part of the test.
            if let Ok(client) = Client::connect_v1(node, &format!("m{}", self.number)).await {
                let _ = self.serve(client).await;
            }
            self.is_joined = false;
            self.open = None;
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn serve(&mut self, mut client: Client) -> anyhow::Result<()> {
        let stay = STAY.0 + STAY.1.mul_f64(fastrand::f64());
        let leave_at = Instant::now() + stay;
        self.join_at = Some(Instant::now());
        loop {
            let join_at = self.join_at.unwrap_or(leave_at);
            let may_leave = !self.world.is_silent.load(Ordering::Relaxed);
            tokio::select! {
                frames = client.read() => {
                    for frame in frames? {
                        match frame {
                            Incoming::Text(text) => self.take(&serde_json::from_slice(&text)?)?,
                            Incoming::Close => return Ok(()),
                        }
                    }
                }
                () = sleep_until(join_at), if self.join_at.is_some() => self.join(&mut client)?,
                () = sleep_until(self.send_at) => self.send(&mut client)?,
                () = sleep_until(leave_at), if may_leave => return Ok(()),
            }
        }
    }

    fn join(&mut self, client: &mut Client) -> anyhow::Result<()> {
        self.join_at = None;
        let payload = match &self.place {
            Some((epoch, offset)) => json!({"since": {"epoch": epoch, "offset": offset}}),
            None => json!({}),
        };
        let room = self.room_name();
        client.send(&json!({"type": "join", "room": room, "id": "join", "payload": payload}))
    }

    fn send(&mut self, client: &mut Client) -> anyhow::Result<()> {
        self.send_at = Instant::now() + SEND_INTERVAL;
        if !self.is_joined || self.open.is_some() || self.world.is_silent.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.sent += 1;
        let text = format!("m{} {}", self.number, self.sent);
        let message = json!({"type": "chat_message", "room": self.room_name(), "id": "say",
            "payload": {"text": text}});
        self.open = Some(text);
        client.send(&message)
    }

    fn take(&mut self, frame: &Value) -> anyhow::Result<()> {
        let payload = &frame["payload"];
        match frame["type"].as_str() {
            Some("ack") if payload["id"] == "join" => self.joined(&payload["room"]),
            Some("error") if payload["id"] == "join" => {
                if payload["retryable"] != true {
                    self.world.truth.faults.add(format!("a join got {frame}"));
                }
                // Redis is away.
                self.join_at = Some(Instant::now() + RETRY_PAUSE);
            }
            Some("ack" | "error") if payload["id"] == "say" => {
                let is_acked = matches!(payload["status"].as_str(), Some("delivered" | "kept"));
                if let Some(text) = self.open.take().filter(|_| is_acked) {
                    self.world.truth.acked(text);
                }
            }
            // Before the answer to the join it says the same as the answer.
            Some("joined") if self.is_joined && payload["recovered"] == false => {
                self.world.truth.missed.fetch_add(1, Ordering::Relaxed);
                self.move_to(payload);
            }
            Some("chat_message") => self.came(frame)?,
            _ => {}
        }
        Ok(())
    }

    fn joined(&mut self, room: &Value) {
        let truth = &self.world.truth;
        self.is_joined = true;
        match (&self.place, room["recovered"].as_bool()) {
            (Some((epoch, offset)), Some(true)) => {
                truth.recovered.fetch_add(1, Ordering::Relaxed);
                let end = room["offset"].as_u64().unwrap_or_default();
                let count = room["count"].as_u64().unwrap_or_default();
                if room["epoch"] != *epoch || offset + count != end {
                    let member = self.number;
                    truth
                        .faults
                        .add(format!("m{member} at {epoch} {offset} got {room}"));
                }
            }
            (Some(_), Some(false)) => {
                truth.refused.fetch_add(1, Ordering::Relaxed);
                self.move_to(room);
            }
            (None, None) => self.move_to(room),
            _ => truth.faults.add(format!("m{} got {room}", self.number)),
        }
    }

    fn came(&mut self, message: &Value) -> anyhow::Result<()> {
        let truth = &self.world.truth;
        let (Some((epoch, last)), Some(offset), Some(text)) = (
            &mut self.place,
            message["offset"].as_u64(),
            message["payload"]["text"].as_str(),
        ) else {
            truth.faults.add(format!("m{} got {message}", self.number));
            bail!("a message without a number");
        };
        if offset != *last + 1 {
            let member = self.number;
            truth
                .faults
                .add(format!("m{member} is at {epoch} {last} and got {offset}"));
        }
        *last = offset;
        truth.came(self.room, epoch, offset, text);
        truth.is_at(self.number, self.room, epoch, offset);
        Ok(())
    }

    /// Continues after the place in `room`, without the messages before it.
    fn move_to(&mut self, room: &Value) {
        let epoch = room["epoch"].as_str().unwrap_or_default();
        let offset = room["offset"].as_u64().unwrap_or_default();
        let truth = &self.world.truth;
        truth.is_at(self.number, self.room, epoch, offset);
        self.place = Some((epoch.to_owned(), offset));
    }

    fn room_name(&self) -> String {
        format!("room:{}", self.room)
    }
}

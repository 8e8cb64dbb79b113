//! Sends numbered messages to all rooms through the API, at any node that is ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::json;

use super::PATIENCE;
use super::balancer::Balancer;
use super::members::room;
use super::nodes::API_KEY;
use crate::http;

/// Time until a call that failed is repeated.
const RETRY: Duration = Duration::from_millis(50);

/// A thread for each room. They end when this value is dropped.
pub(super) struct Publisher {
    rooms: Vec<Room>,
    is_over: Arc<AtomicBool>,
}

struct Room {
    /// The number of the last message that was accepted.
    last: Arc<AtomicU64>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Publisher {
    /// Sends a message to each of the rooms after each `interval`. The first one has the number 1.
    pub(super) fn start(balancer: &Balancer, rooms: usize, interval: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let start = |number| {
            let last = Arc::new(AtomicU64::new(0));
            let (pick, is_over, counter) =
                (balancer.picker(), Arc::clone(&is_over), Arc::clone(&last));
            let thread = thread::spawn(move || {
                let begun = Instant::now();
                for message in 1_u32.. {
                    let due = begun + interval * message;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    publish(&pick, &room(number), message)?;
                    counter.store(message.into(), Ordering::Relaxed);
                }
                Ok(())
            });
            Room {
                last,
                thread: Some(thread),
            }
        };
        Self {
            rooms: (0..rooms).map(start).collect(),
            is_over,
        }
    }

    /// Waits until so many more messages were sent to each room.
    pub(super) fn wait(&self, messages: u64) -> anyhow::Result<()> {
        let goals: Vec<_> = self.counts().map(|count| count + messages).collect();
        let end = Instant::now() + PATIENCE;
        while self.counts().zip(&goals).any(|(count, goal)| count < *goal) {
            ensure!(
                Instant::now() < end,
                "the API accepts no messages within {PATIENCE:?}"
            );
            thread::sleep(RETRY);
        }
        Ok(())
    }

    /// Ends, and returns the number of the last message to each room.
    pub(super) fn finish(mut self) -> anyhow::Result<Vec<u64>> {
        self.is_over.store(true, Ordering::Relaxed);
        for room in &mut self.rooms {
            if let Some(thread) = room.thread.take() {
                thread
                    .join()
                    .map_err(|_| anyhow!("a publisher panicked"))??;
            }
        }
        Ok(self.counts().collect())
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        self.rooms
            .iter()
            .map(|room| room.last.load(Ordering::Relaxed))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Sends a message, at another node if one does not accept it. The server acts once, however often it is asked.
fn publish(pick: &impl Fn() -> Option<SocketAddr>, room: &str, number: u32) -> anyhow::Result<()> {
    let body = json!({"type": "t", "payload": number, "room": room}).to_string();
    let head = format!(
        "Authorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\nIdempotency-Key: {room}-{number}\r\n"
    );
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = pick().context("no node is ready").and_then(|address| {
            let call = ("POST", "/api/messages");
            http::call(address, call, &head, body.as_bytes(), Some(PATIENCE))
        });
        let why = match answer {
            Ok((200..300, _)) => return Ok(()),
            Ok((status, answer)) => anyhow!("{status} {answer}"),
            Err(error) => error,
        };
        if Instant::now() >= end {
            bail!("message {number} to {room} was not accepted within {PATIENCE:?}: {why}");
        }
        thread::sleep(RETRY);
    }
}

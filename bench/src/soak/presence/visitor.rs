//! A client that goes to the place that the test wants, and keeps the users of its room.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::view::View;
use crate::client::{Client, Incoming};
use crate::lock;
use crate::soak::faults::Faults;

/// Pause before the next attempt to connect or to join.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The place of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is not connected.
    Away,
    /// It is connected, and not in its room.
    Outside,
    /// It is in its room.
    Inside,
}

/// State that all visitors share.
#[derive(Debug)]
pub(super) struct PresenceWorld {
    pub(super) nodes: Vec<SocketAddr>,
    pub(super) contradictions: Faults,
    /// Times that a client saw somebody leave who stayed.
    pub(super) false_leaves: AtomicU64,
    /// How long a user may be away without having left.
    pub(super) grace: Duration,
}

/// The users who are in a room, each with the time since which that is so.
pub(super) type Stays = Arc<Mutex<BTreeMap<String, Instant>>>;

/// A client. Its task ends when it is aborted.
#[derive(Debug)]
pub(super) struct Visitor {
    world: Arc<PresenceWorld>,
    pub(super) user: String,
    room: String,
    stays: Stays,
    pub(super) wanted: watch::Sender<Place>,
    pub(super) place: watch::Sender<Place>,
    /// The node that it is connected to, by number.
    pub(super) node: AtomicUsize,
    view: Mutex<View>,
}

impl Visitor {
    pub(super) fn new(
        world: Arc<PresenceWorld>,
        user: String,
        room: String,
        stays: Stays,
    ) -> Arc<Self> {
        Arc::new(Self {
            world,
            user,
            room,
            stays,
            wanted: watch::Sender::new(Place::Away),
            place: watch::Sender::new(Place::Away),
            node: AtomicUsize::new(0),
            view: Mutex::default(),
        })
    }

    /// The users of its room as it knows them.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// Waits until it is at the wanted place.
    pub(super) async fn settled(&self) {
        let wanted = *self.wanted.borrow();
        let mut place = self.place.subscribe();
        // It fails only if this was dropped.
        let _ = place.wait_for(|place| *place == wanted).await;
    }

    /// Goes to the wanted place, until its task is aborted.
    pub(super) async fn live(self: Arc<Self>) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let is_wanted = wanted.wait_for(|wanted| *wanted != Place::Away);
            if is_wanted.await.is_err() {
                return;
            }
            let node = fastrand::usize(..self.world.nodes.len());
            self.node.store(node, Ordering::Relaxed);
            if let Ok(client) = Client::connect_v1(self.world.nodes[node], &self.user).await {
                // Ends because that is wanted, by the server, or because a failure broke it.
                let _ = self.serve(client, fastrand::bool()).await;
            }
            self.view().forget();
            self.place.send_replace(Place::Away);
            if *wanted.borrow_and_update() != Place::Away {
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Serves one connection. At the end of the visit it closes politely, or breaks off.
    async fn serve(&self, mut client: Client, is_polite: bool) -> anyhow::Result<()> {
        let mut wanted = self.wanted.subscribe();
        self.place.send_replace(Place::Outside);
        // The place that was asked for.
        let mut asked = Place::Outside;
        let mut retry_at = None;
        loop {
            let now = *wanted.borrow_and_update();
            match now {
                Place::Away if is_polite => {
                    client.send_close()?;
                    return until_closed(client).await;
                }
                Place::Away => return Ok(()),
                _ if now == asked || retry_at.is_some() => {}
                _ => {
                    asked = now;
                    self.ask(&mut client, now)?;
                }
            }
            tokio::select! {
                frames = client.read() => {
                    for frame in frames? {
                        let Incoming::Text(text) = frame else {
                            return Ok(());
                        };
                        if !self.take(&serde_json::from_slice(&text)?) {
                            asked = *self.place.borrow();
                            retry_at = Some(Instant::now() + RETRY_PAUSE);
                        }
                    }
                }
                _ = wanted.changed() => {}
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    retry_at = None;
                }
            }
        }
    }

    fn ask(&self, client: &mut Client, place: Place) -> anyhow::Result<()> {
        let (kind, payload) = match place {
            Place::Inside => ("join", json!({"presence": true})),
            _ => ("leave", Value::Null),
        };
        client.send(&json!({"type": kind, "room": self.room, "id": kind, "payload": payload}))
    }

    /// Takes a frame; `false` if it says that a request failed.
    fn take(&self, frame: &Value) -> bool {
        let payload = &frame["payload"];
        match (frame["type"].as_str(), payload["id"].as_str()) {
            (Some("ack"), Some("join")) => {
                self.place.send_replace(Place::Inside);
            }
            (Some("ack"), Some("leave")) => {
                self.view().forget();
                self.place.send_replace(Place::Outside);
            }
            (Some("error"), Some("join" | "leave")) => {
                if payload["retryable"] != true {
                    let contradictions = &self.world.contradictions;
                    contradictions.add(format!("{} got {frame}", self.user));
                }
                return false;
            }
            (Some("presence"), _) => self.learn(payload),
            _ => {}
        }
        true
    }

    fn learn(&self, payload: &Value) {
        let learnt = self.view().take(payload);
        match learnt {
            Ok(left) => {
                let stays = lock(&self.stays);
                let stayed = |user: &&String| {
                    let since = stays.get(*user);
                    since.is_some_and(|since| since.elapsed() > self.world.grace)
                };
                let stayed = left.iter().filter(stayed).count();
                let false_leaves = &self.world.false_leaves;
                false_leaves.fetch_add(stayed as u64, Ordering::Relaxed);
            }
            Err(what) => {
                let contradictions = &self.world.contradictions;
                contradictions.add(format!("{} in {}: {what}", self.user, self.room));
            }
        }
    }
}

async fn until_closed(mut client: Client) -> anyhow::Result<()> {
    loop {
        for frame in client.read().await? {
            if matches!(frame, Incoming::Close) {
                return Ok(());
            }
        }
    }
}

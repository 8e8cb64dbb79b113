//! Many clients in one process, for the herd of `clients/conformance/README.md`.

mod commands;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::json;
use signalbox_client::{Client, Error, Event, Events, JoinOptions, Options, State, StateChange};

#[derive(Deserialize)]
struct Line {
    n: u64,
    #[serde(flatten)]
    command: Command,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
enum Command {
    Open { url: String, clients: Vec<Member> },
    Report,
}

#[derive(Deserialize)]
struct Member {
    user: String,
    rooms: Vec<String>,
}

/// What one client has seen.
#[derive(Serialize)]
struct Report {
    user: String,
    attempts: usize,
    /// Milliseconds since 1970.
    connected: Vec<u64>,
    /// Milliseconds.
    waits: Vec<u64>,
    errors: Vec<String>,
    rooms: BTreeMap<String, RoomReport>,
    #[serde(skip)]
    was_connected: bool,
}

#[derive(Default, Serialize)]
struct RoomReport {
    joined: bool,
    numbers: Runs,
    offsets: Runs,
    recovered: Vec<bool>,
}

/// Numbers in the order in which they came: each run has its first and its last, and each number between is one more than the
/// one before.
#[derive(Default, Serialize)]
struct Runs(Vec<(u64, u64)>);

impl Runs {
    fn note(&mut self, number: u64) {
        match self.0.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.0.push((number, number)),
        }
    }
}

type Shared = Arc<Mutex<Report>>;

fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut lines = commands::lines::<Line>();
    let mut herd = Vec::new();
    while let Some(Line { n, command }) = lines.recv().await {
        match command {
            Command::Open { url, clients } => {
                for member in clients {
                    herd.push(open(&url, member).await?);
                }
                println!("{}", json!({"n": n, "ok": null}));
            }
            Command::Report => {
                let reports: Vec<_> = herd.iter().map(|(_, report)| lock(report)).collect();
                let reports: Vec<&Report> = reports.iter().map(|report| &**report).collect();
                println!("{}", json!({"n": n, "ok": reports}));
            }
        }
    }
    for (client, _) in herd {
        client.close().await;
    }
    Ok(())
}

async fn open(url: &str, Member { user, rooms }: Member) -> Result<(Client, Shared), Error> {
    let (client, events) = Client::new(Options::user(url, &user))?;
    let report = Arc::new(Mutex::new(Report {
        user,
        attempts: 0,
        connected: Vec::new(),
        waits: Vec::new(),
        errors: Vec::new(),
        rooms: BTreeMap::new(),
        was_connected: false,
    }));
    tokio::spawn(follow(events, Arc::clone(&report)));
    client.connect().await;
    for name in rooms {
        lock(&report)
            .rooms
            .insert(name.clone(), RoomReport::default());
        let (room, report) = (client.room(&name), Arc::clone(&report));
        tokio::spawn(async move {
            // An event reports a failure.
            let joined = room.join(JoinOptions::default()).await.is_ok();
            in_room(&report, &name, |room| room.joined = joined);
        });
    }
    Ok((client, report))
}

async fn follow(mut events: Events, report: Shared) {
    while let Some(event) = events.recv().await {
        match event {
            Event::State(change) => on_state(&report, &change),
            Event::Message(message) => match message.payload.get().parse() {
                Ok(number) => in_room(&report, &message.room.unwrap_or_default(), |room| {
                    room.numbers.note(number);
                    room.offsets.note(message.offset.unwrap_or_default());
                }),
                Err(error) => lock(&report).errors.push(error.to_string()),
            },
            Event::Recovery {
                room, recovered, ..
            } => in_room(&report, &room.unwrap_or_default(), |room| {
                room.recovered.push(recovered);
            }),
            Event::Left { error, .. } | Event::Error(error) => {
                lock(&report).errors.push(error.code);
            }
            _ => {}
        }
    }
}

fn on_state(report: &Mutex<Report>, change: &StateChange) {
    let mut report = lock(report);
    let was_connected = std::mem::take(&mut report.was_connected);
    match change.state {
        State::Connecting => report.attempts += 1,
        State::Connected => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            report
                .connected
                .push(now.unwrap_or_default().as_millis() as u64);
            report.was_connected = true;
        }
        State::Closed => report.errors.push(format!("closed with {:?}", change.code)),
        State::Disconnected if was_connected => {
            let wait = change.retry_in.unwrap_or_default();
            report.waits.push(wait.as_millis() as u64);
        }
        State::Disconnected => {}
    }
}

fn in_room(report: &Mutex<Report>, name: &str, change: impl FnOnce(&mut RoomReport)) {
    let mut report = lock(report);
    match report.rooms.get_mut(name) {
        Some(room) => change(room),
        None => report
            .errors
            .push(format!("a message for the room {name:?}")),
    }
}

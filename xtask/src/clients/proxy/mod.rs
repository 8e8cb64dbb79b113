//! A proxy between a client and the server that fails in the way that a case wants.

mod commands;
mod events;
mod frames;
mod link;
mod post;
mod request;
mod seen;
mod wire;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use serde_json::Value;

pub(super) use commands::Command;
use commands::{Opening, Treatment};
use link::Link;
use request::Kind;
use seen::Seen;
use wire::Extra;

/// A listener whose connections are forwarded to the server. Everything ends when this value is dropped.
pub(super) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// The state that the threads of a proxy share.
struct Shared {
    server: Mutex<SocketAddr>,
    openings: Mutex<Openings>,
    treatments: Mutex<Vec<(Kind, Treatment)>>,
    links: Mutex<Vec<Arc<Link>>>,
    seen: Mutex<Seen>,
    is_over: AtomicBool,
}

/// How the next connections begin.
struct Openings {
    first: Vec<Opening>,
    then: Opening,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens on a free port, and forwards to `server`.
    pub(super) fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            openings: Mutex::new(Openings {
                first: Vec::new(),
                then: Opening::Forward,
            }),
            treatments: Mutex::default(),
            links: Mutex::default(),
            seen: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared))
        };
        Ok(Self {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    /// The URL that clients connect to.
    pub(super) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Forwards to another address from now on.
    pub(super) fn set_server(&self, server: SocketAddr) {
        *lock(&self.shared.server) = server;
    }

    /// Changes how the next connections begin, or does something to those that are open.
    pub(super) fn obey(&self, command: &Command) {
        match command {
            Command::Next { times, opening } => {
                let mut openings = lock(&self.shared.openings);
                openings.first = vec![opening.clone(); *times];
            }
            Command::All(opening) => {
                let mut openings = lock(&self.shared.openings);
                openings.first.clear();
                openings.then = opening.clone();
            }
            Command::Upgrades(treatment) => self.treat(Kind::Upgrade, treatment),
            Command::Streams(treatment) => self.treat(Kind::Stream, treatment),
            Command::Posts(treatment) => self.treat(Kind::Post, treatment),
            Command::Cut => self.each(Link::cut),
            Command::HalfClose => self.each(Link::half_close),
            Command::Stall(direction) => {
                self.each(|link| link.control().stalled = Some(*direction))
            }
            Command::Resume => self.each(|link| link.control().stalled = None),
            Command::Slow(slowness) => self.each(|link| link.control().slowness = slowness.clone()),
            Command::RepeatLast => self.each(Link::repeat_last),
            Command::Drop(part) => self.each(|link| link.control().drop.push(part.clone())),
            Command::Reply { to, times, with } => {
                self.each(|link| link.control().reply(to, *times, with));
            }
            Command::Inject(text) => self.each(|link| link.inject(Extra::Text(text.clone()))),
            Command::InjectBytes(text) => {
                self.each(|link| link.inject(Extra::Bytes(text.clone().into_bytes())));
            }
            Command::InjectClose { code, reason } => {
                let (code, reason) = (*code, reason.clone());
                self.each(|link| {
                    let reason = reason.clone();
                    link.inject(Extra::Close { code, reason });
                });
            }
        }
    }

    /// Treats the next requests of a kind in another way.
    fn treat(&self, kind: Kind, treatment: &Treatment) {
        let mut treatments = lock(&self.shared.treatments);
        treatments.retain(|(other, _)| *other != kind);
        treatments.push((kind, treatment.clone()));
    }

    /// Everything that passed, for patterns.
    pub(super) fn seen(&self) -> Value {
        lock(&self.shared.seen).to_json(self.shared.live())
    }

    /// The frames that clients sent, and their upgrades, from number `from` on.
    pub(super) fn sent(&self, from: usize) -> Vec<Value> {
        let seen = lock(&self.shared.seen);
        seen.sent.get(from..).unwrap_or_default().to_vec()
    }

    fn each(&self, change: impl Fn(&Link)) {
        for link in lock(&self.shared.links).iter() {
            change(link);
        }
    }
}

impl Shared {
    /// The connections that their clients hold open.
    fn live(&self) -> usize {
        let links = lock(&self.links);
        links.iter().filter(|link| link.is_live()).count()
    }

    fn next_opening(&self) -> Opening {
        let mut openings = lock(&self.openings);
        openings
            .first
            .pop()
            .unwrap_or_else(|| openings.then.clone())
    }

    /// How the next request of a kind begins.
    fn opening_of(&self, kind: Kind) -> Opening {
        let mut treatments = lock(&self.treatments);
        let found = treatments.iter_mut().find(|(other, _)| *other == kind);
        let Some((_, treatment)) = found else {
            return Opening::Forward;
        };
        match &mut treatment.times {
            Some(0) => Opening::Forward,
            Some(times) => {
                *times -= 1;
                treatment.opening.clone()
            }
            None => treatment.opening.clone(),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts. If that fails, it has ended.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            // It does not panic.
            let _ = accepting.join();
        }
        self.each(Link::cut);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        lock(&shared.seen).accepted += 1;
        let link = Arc::new(Link::new(client));
        lock(&shared.links).push(Arc::clone(&link));
        let shared = Arc::clone(shared);
        let opening = shared.next_opening();
        thread::spawn(move || link::run(&link, &shared, &opening));
    }
}

//! Three nodes that meet at one Redis.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::PATIENCE;
use crate::cluster::Redis;
use crate::cluster::child::{Child, Event};
use crate::languages::server_address;

pub(super) const NODES: usize = 3;

/// The key of `/api/`.
pub(super) const API_KEY: &str = "the-key-of-the-herd-alone";

/// `server.drain_timeout`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// The part of it for connections, see docs/operations.md.
const DRAIN_OF_CONNECTIONS: f64 = 0.55;

/// The most lines of the logs in the description of a failure.
const LINES_MAX: usize = 15;

const CONFIG: &str = r#"
[events]
client = []
[broker]
kind = "redis"
[[rooms]]
match = "history:*"
history = { size = 300, time = "10m" }
send = "backend"
"#;

/// All nodes and their Redis. They are killed when this value is dropped.
pub(super) struct Nodes {
    program: PathBuf,
    nodes: Vec<Node>,
    events: Sender<Event>,
    log: Receiver<Event>,
    redis: Redis,
}

struct Node {
    folder: PathBuf,
    process: Option<Child>,
    address: SocketAddr,
}

/// The time in which a node closes its connections.
pub(super) fn drain_time() -> Duration {
    DRAIN_TIMEOUT.mul_f64(DRAIN_OF_CONNECTIONS)
}

impl Nodes {
    /// Starts Redis and all nodes, each on a free port.
    pub(super) fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (events, log) = channel();
        let mut nodes = Self {
            program: program.to_owned(),
            nodes: Vec::new(),
            redis: Redis::start(&events)?,
            events,
            log,
        };
        for number in 0..NODES {
            let folder = folder.join(format!("node-{}", number + 1));
            fs::create_dir_all(&folder)?;
            fs::write(
                folder.join("platform.toml"),
                nodes.config(&format!("node-{}", number + 1)),
            )?;
            nodes.nodes.push(Node {
                folder,
                process: None,
                address: SocketAddr::from(([127, 0, 0, 1], 0)),
            });
            nodes.run(number)?;
        }
        Ok(nodes)
    }

    /// Their addresses, in order.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Starts a node, and returns its new address.
    pub(super) fn run(&mut self, number: usize) -> anyhow::Result<SocketAddr> {
        let node = &mut self.nodes[number];
        let mut command = Command::new(&self.program);
        command
            .args(["run", "--config", "platform.toml"])
            .env("WSS_PORT", "0")
            .current_dir(&node.folder);
        let (events, log) = channel();
        let name = format!("node {}", number + 1);
        node.process = Some(Child::start(name, command, &events)?);
        drop(events);
        node.address = server_address(&log)?;
        let all = self.events.clone();
        thread::spawn(move || {
            for event in log {
                // Nobody listens once the herd has ended.
                let _ = all.send(event);
            }
        });
        Ok(node.address)
    }

    /// Asks a node to end, and waits until it has.
    pub(super) fn stop(&mut self, number: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[number];
        let mut child = node.process.take().context("the node does not run")?;
        child.terminate();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.ended() {
                ensure!(status.success(), "node {} ended with {status}", number + 1);
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "node {} does not end within {PATIENCE:?}",
                number + 1
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The last lines of the logs that are warnings or errors.
    pub(super) fn story(&self) -> String {
        let lines = self.log.try_iter().filter_map(|event| match event {
            Event::Line { name, text, .. } => Some(format!("{name}: {text}")),
            Event::Interrupted => None,
        });
        let lines: Vec<_> = lines
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .collect();
        let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
        format!("warnings of the nodes:\n    {}", last.join("\n    "))
    }

    /// On a busy machine Redis may be late, and a message whose answer did not come in time may be kept twice.
    fn config(&self, name: &str) -> String {
        format!(
            "[api]\nkeys = [\"{API_KEY}\"]\n[redis]\nurl = \"{}\"\ncommand_timeout = \"10s\"\n[server]\nnode_id = \"{name}\"\ndrain_timeout = \"{}s\"\n{CONFIG}",
            self.redis.url,
            DRAIN_TIMEOUT.as_secs()
        )
    }
}

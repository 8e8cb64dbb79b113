//! The server of a case.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::PATIENCE;
use super::cases::Case;
use crate::cluster::child::{Child, Event};
use crate::http;
use crate::languages::server_address;

/// The key of `/api/`.
const API_KEY: &str = "the-key-of-these-cases-alone";

/// The secret of the tokens.
const JWT_SECRET: &str = "the-secret-of-these-cases-which-is-long-enough";

/// Rooms with all that clients support, and everything else as it comes. The names in cases choose the rule.
const CONFIG: &str = r#"
[events]
client = ["*"]
[presence]
grace = "200ms"
flush = "50ms"
members_max = 3
[[rooms]]
match = "history:*"
history = { size = 100, time = "5m" }
[[rooms]]
match = "short:*"
history = { size = 2, time = "5m" }
[[rooms]]
match = "presence:*"
presence = true
[[rooms]]
match = "full:*"
presence = true
members_max = 1
[[rooms]]
match = "closed:*"
join = "backend"
"#;

/// A server with its configuration. It is killed when this value is dropped.
pub(super) struct Server {
    program: PathBuf,
    folder: PathBuf,
    process: Option<(Child, Receiver<Event>)>,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Writes the configuration of `case` into `folder`, and starts the server there.
    pub(super) fn start(program: &Path, folder: PathBuf, case: &Case) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        let auth = if case.tokens {
            format!("[auth]\nmode = \"jwt\"\njwt_secret = \"{JWT_SECRET}\"\n")
        } else {
            String::new()
        };
        let config = format!(
            "[api]\nkeys = [\"{API_KEY}\"]\n{auth}{}{CONFIG}",
            case.config
        );
        fs::write(folder.join("platform.toml"), config)?;
        let mut server = Self {
            program: program.to_owned(),
            folder,
            process: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        server.run()?;
        Ok(server)
    }

    /// Starts the process, on another port.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        let mut command = self.command();
        command.args(["run", "--config", "platform.toml"]);
        command.env("WSS_PORT", "0");
        let (events, log) = channel();
        let child = Child::start("the server".to_owned(), command, &events)?;
        drop(events);
        self.address = server_address(&log)?;
        self.process = Some((child, log));
        Ok(())
    }

    /// Kills the process.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Asks the process to end, and waits until it has.
    pub(super) fn drain(&mut self) -> anyhow::Result<()> {
        let Some((mut child, _log)) = self.process.take() else {
            return Ok(());
        };
        child.terminate();
        let end = Instant::now() + PATIENCE;
        while child.ended().is_none() {
            ensure!(Instant::now() < end, "the server does not drain");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A token of `user` that is valid for `time`, such as `1h`, for connections or for a room.
    pub(super) fn token(
        &self,
        user: &str,
        time: &str,
        room: Option<&str>,
    ) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(["token", "--user", user, "--ttl", time]);
        command.args(room.iter().flat_map(|room| ["--room", room]));
        command.args(["--config", "platform.toml"]);
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "no token: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Calls `/api/`, which must succeed.
    pub(super) fn call(&self, (method, path): (&str, &str), body: &Value) -> anyhow::Result<Value> {
        let head = format!("Authorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\n");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, answer) = http::call(
            self.address,
            (method, path),
            &head,
            body.as_bytes(),
            Some(PATIENCE),
        )?;
        ensure!(
            (200..300).contains(&status),
            "{path} answers {status}: {answer}"
        );
        serde_json::from_str(&answer).with_context(|| format!("{path} answers no JSON: {answer}"))
    }

    /// The last lines of its log.
    pub(super) fn story(&self) -> String {
        let log = self.process.iter().flat_map(|(_, log)| log.try_iter());
        let lines = log.filter_map(|event| match event {
            Event::Line { text, .. } => Some(text),
            Event::Interrupted => None,
        });
        let lines: Vec<_> = lines.collect();
        lines[lines.len().saturating_sub(10)..].join("\n    ")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder);
        command
    }
}

//! `cargo xtask smoke`: an optimised server starts, carries a message through the chat plugin, and drains.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{listening_address, server_config};
use crate::http;
use crate::plugins;
use crate::requirements::{self, WASM_TARGET};
use crate::steps::run_program;
use crate::temp::TempDir;
use crate::workspace::Workspace;

/// The cargo profile: optimised, and built in minutes.
const PROFILE: &str = "smoke";

/// Time limit for each step. Starting compiles the plugin.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Pause between two looks at the metrics.
const PAUSE: Duration = Duration::from_millis(50);

/// Builds the optimised programs and runs the test.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    requirements::ensure(&[WASM_TARGET])?;
    plugins::build_shipped(workspace)?;
    let words = ["build", "--profile", PROFILE, "-p", "signalbox", "-p"];
    run_program(workspace.cargo().args(words).arg("chat-client"))?;
    let folder = TempDir::new("smoke").context("cannot create a temporary folder")?;
    let config = folder.path().join("platform.toml");
    let plugin = workspace.plugins_dir().join("chat.wasm");
    fs::write(&config, server_config(Some(&plugin), None))
        .with_context(|| format!("cannot write {}", config.display()))?;
    let mut server = Server::start(&workspace.program(PROFILE, "signalbox"), &config)?;
    let address = server.address()?;
    send_a_message(&workspace.program(PROFILE, "chat-client"), address)?;
    ensure!(
        metric(address, "wss_plugin_calls_total{")? > 0.0,
        "the message did not pass the chat plugin"
    );
    server.drain()?;
    println!("the optimised server carried a message through the chat plugin, and drained");
    Ok(ExitCode::SUCCESS)
}

/// Sends a message from one client to another.
fn send_a_message(client: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let mut receiver = start_client(client, address, "bob", &["--expect", "1"])?;
    let connected = Instant::now() + TIME_MAX;
    while metric(address, "wss_active_connections")? < 1.0 {
        ensure!(
            Instant::now() < connected,
            "the receiver does not connect within {TIME_MAX:?}"
        );
        thread::sleep(PAUSE);
    }
    let mut sender = start_client(client, address, "ann", &[])?;
    let mut input = sender.stdin.take().context("the client has no input")?;
    input.write_all(b"/to bob\nhello\n")?;
    drop(input);
    for (name, client) in [("sender", &mut sender), ("receiver", &mut receiver)] {
        let status = client.wait()?;
        ensure!(
            status.success(),
            "the {name} ended with {status}; its output is above"
        );
    }
    Ok(())
}

/// Starts a client that gives up after [`TIME_MAX`].
fn start_client(
    program: &Path,
    address: SocketAddr,
    user: &str,
    args: &[&str],
) -> anyhow::Result<Child> {
    Command::new(program)
        .args(["--user", user, "--url", &format!("ws://{address}/ws")])
        .args(["--timeout", &TIME_MAX.as_secs().to_string()])
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// The value of the first series in `/metrics` whose line begins with `name`; 0 if there is none.
fn metric(address: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let (status, body) = http::call(address, ("GET", "/metrics"), "", b"", Some(TIME_MAX))?;
    ensure!(status == 200, "/metrics answers {status}: {body}");
    let line = body.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    Ok(value.map_or(Ok(0.0), str::parse)?)
}

/// The server's process. It is killed when this value is dropped.
struct Server {
    process: Child,
    addresses: Receiver<SocketAddr>,
}

impl Server {
    fn start(program: &Path, config: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .args(["run", "--config"])
            .arg(config)
            .current_dir(config.parent().unwrap_or(Path::new(".")))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let log = process.stderr.take().context("the server has no log")?;
        let addresses = show(log);
        Ok(Self { process, addresses })
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        let address = self.addresses.recv_timeout(TIME_MAX);
        address.with_context(|| {
            format!("the server did not say within {TIME_MAX:?} where it listens; its log is above")
        })
    }

    /// Asks it to drain, and waits until it has ended.
    fn drain(&mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let end = Instant::now() + TIME_MAX;
        loop {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the server ended with {status}; its log is above"),
                None if Instant::now() > end => {
                    bail!("the server does not drain within {TIME_MAX:?}")
                }
                None => thread::sleep(PAUSE),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Shows the log, and sends the addresses that the server listens on.
fn show(log: ChildStderr) -> Receiver<SocketAddr> {
    let (found, addresses) = channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            eprintln!("{line}");
            if let Some(address) = listening_address(&line) {
                // Nobody waits for a second address.
                let _ = found.send(address);
            }
        }
    });
    addresses
}

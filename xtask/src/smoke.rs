//! `cargo xtask smoke`: an optimised server starts, carries a message through the chat plugin, and drains.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{self, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::bench::server_config;
use crate::cluster::child::{Child, Event};
use crate::http;
use crate::languages::server_address;
use crate::plugins;
use crate::requirements::{self, WASM_TARGET};
use crate::steps::run_program;
use crate::temp::TempDir;
use crate::workspace::Workspace;

/// The cargo profile: optimised, and built in minutes.
const PROFILE: &str = "smoke";

/// Time limit for each step. Starting compiles the plugin.
const TIME_MAX: Duration = Duration::from_secs(120);

/// The interval for polling the metrics.
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
    let mut command = Command::new(workspace.program(PROFILE, "signalbox"));
    command.args(["run", "--config"]).arg(&config);
    command.current_dir(folder.path());
    let (events, log) = channel();
    let mut server = Child::start("the server".to_owned(), command, &events)?;
    drop(events);
    let address = server_address(&log)?;
    let client = workspace.program(PROFILE, "chat-client");
    let tested = send_a_message(&client, address).and_then(|()| drain(&mut server));
    // Ends the log, if it has not ended by itself.
    drop(server);
    tested.with_context(|| format!("the log of the server:\n{}", rest_of(&log)))?;
    println!("the optimised server carried a message through the chat plugin, and drained");
    Ok(ExitCode::SUCCESS)
}

/// The lines of a log that has ended.
fn rest_of(log: &Receiver<Event>) -> String {
    let lines = log.iter().filter_map(|event| match event {
        Event::Line { text, .. } => Some(text),
        Event::Interrupted => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Sends a message from one client to another, through the plugin.
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
    ensure!(
        metric(address, "wss_plugin_calls_total{")? > 0.0,
        "the message did not pass the chat plugin"
    );
    Ok(())
}

/// Starts a client that gives up after [`TIME_MAX`].
fn start_client(
    program: &Path,
    address: SocketAddr,
    user: &str,
    args: &[&str],
) -> anyhow::Result<process::Child> {
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

/// Asks the server to drain, and waits until it has ended.
fn drain(server: &mut Child) -> anyhow::Result<()> {
    server.terminate();
    let end = Instant::now() + TIME_MAX;
    loop {
        match server.ended() {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("the server ended with {status}"),
            None if Instant::now() > end => bail!("the server does not drain within {TIME_MAX:?}"),
            None => thread::sleep(PAUSE),
        }
    }
}

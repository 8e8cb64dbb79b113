//! The processes of a soak test: Redis and the nodes, on this machine. Dropping a value ends its process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::exchange::{exchange, redis_calls};
use crate::process::usage;

/// Time limit for a process to become ready, or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The file with the data of Redis.
const REDIS_DATA: &str = "soak.rdb";

/// How long Redis is down.
pub(super) const REDIS_AWAY: Duration = Duration::from_secs(2);

/// Interval between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A child process. It is killed when this is dropped.
struct Process(Child);

impl Process {
    /// Starts a process without input.
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let program = command.get_program().display();
        started
            .map(Self)
            .with_context(|| format!("cannot start {program}"))
    }

    fn ask_to_end(&self) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), Signal::TERM)?)
    }

    /// Waits until the process has ended. `name` is for errors.
    async fn ended(mut self, name: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait()? {
                ensure!(status.success(), "{name} ended with {status}");
                return Ok(());
            }
            sleep(POLL_INTERVAL).await;
        }
        bail!("{name} did not end in {PATIENCE:?}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis that keeps its data only if it is asked to end.
pub(super) struct Redis {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Redis {
    pub(super) fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut redis = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            port: free_port()?,
            process: None,
        };
        redis.restart()?;
        Ok(redis)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Asks Redis to end, and waits until it has written its data, or kills it, and all its data is lost.
    pub(super) async fn stop(&mut self, keeps_data: bool) -> anyhow::Result<()> {
        let process = self.process.take();
        if keeps_data {
            let process = process.context("Redis does not run")?;
            process.ask_to_end()?;
            return process.ended("Redis").await;
        }
        drop(process);
        let data = self.folder.join(REDIS_DATA);
        if data.exists() {
            fs::remove_file(data)?;
        }
        Ok(())
    }

    /// Stops Redis for [`REDIS_AWAY`].
    pub(super) async fn interrupt(&mut self, keeps_data: bool) -> anyhow::Result<()> {
        self.stop(keeps_data).await?;
        sleep(REDIS_AWAY).await;
        self.restart()
    }

    /// How often each command was called since the start.
    pub(super) async fn calls(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        redis_calls(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await
    }

    /// Starts Redis again at the same address, with the data that it kept.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.folder)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "3600 1", "--dbfilename", REDIS_DATA])
            .args(["--appendonly", "no", "--loglevel", "warning"])
            .stderr(Stdio::null());
        self.process = Some(Process::start(&mut command)?);
        Ok(())
    }
}

/// A node of the server.
pub(super) struct Node {
    pub(super) name: String,
    program: PathBuf,
    folder: PathBuf,
    pub(super) address: SocketAddr,
    process: Option<Process>,
    /// The process that was asked to end.
    stopping: Option<Process>,
    /// While set, nobody reads the node's log.
    stalled: Arc<AtomicBool>,
}

impl Node {
    /// A node that has not been started yet, with the configuration `soak.toml` in `folder`.
    pub(super) fn new(name: &str, program: &Path, folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            program: program.to_owned(),
            folder: folder.to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            process: None,
            stopping: None,
            stalled: Arc::default(),
        })
    }

    /// Starts the node, and returns when it is ready.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        for (variable, _) in std::env::vars() {
            if variable.starts_with("SIGNALBOX_") {
                command.env_remove(variable);
            }
        }
        command
            .current_dir(&self.folder)
            .args(["run", "--config", "soak.toml"])
            .env("SIGNALBOX_SERVER__LISTEN", self.address.to_string())
            .env("SIGNALBOX_SERVER__NODE_ID", &self.name)
            .env("SIGNALBOX_PLUGIN_CACHE__DIR", self.folder.join("cache"))
            .stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        if let Some(log) = process.0.stderr.take() {
            let file = File::options().create(true).append(true).open(self.log())?;
            let stalled = self.stalled.clone();
            thread::spawn(move || keep_log(BufReader::new(log), file, &stalled));
        }
        self.process = Some(process);
        self.until_ready().await
    }

    /// Asks the node to shut down, waits until it has exited, and returns how long that took.
    pub(super) async fn stop(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.ask_to_stop()?;
        self.stopped().await?;
        Ok(began.elapsed())
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Whether the node was stopped or killed.
    pub(super) fn is_down(&self) -> bool {
        self.process.is_none()
    }

    /// Asks the node to shut down. [`Node::stopped`] must follow.
    pub(super) fn ask_to_stop(&mut self) -> anyhow::Result<()> {
        self.stopping = self.process.take();
        match &self.stopping {
            Some(process) => process.ask_to_end(),
            None => Ok(()),
        }
    }

    /// Waits until a node that was asked to shut down has exited.
    pub(super) async fn stopped(&mut self) -> anyhow::Result<()> {
        match self.stopping.take() {
            Some(process) => process.ended(&format!("node {}", self.name)).await,
            None => Ok(()),
        }
    }

    /// Kills the node.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Stops or resumes reading the node's log.
    pub(super) fn stall_log(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// The node's resident memory in bytes.
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        let process = self.process.as_ref().context("the node does not run")?;
        Ok(usage(process.0.id())?.rss_bytes)
    }

    /// The counters at `/metrics` whose names start with `name`, with their labels.
    pub(super) async fn counters(&self, name: &str) -> anyhow::Result<Vec<(String, f64)>> {
        let text = get(self.address, "/metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        let counter = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(lines.filter_map(counter).collect())
    }

    /// Returns when the node reports that it is ready.
    pub(super) async fn until_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(process) = &mut self.process
                && let Some(status) = process.0.try_wait()?
            {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                bail!("node {} ended with {status}: {last}", self.name);
            }
            let answer = get(self.address, "/ready").await;
            if answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            sleep(POLL_INTERVAL).await;
        }
        bail!("node {} was not ready in {PATIENCE:?}", self.name)
    }
}

/// Returns when all nodes report that they are ready.
pub(super) async fn until_all_ready(nodes: &mut [Node]) -> anyhow::Result<()> {
    for node in nodes {
        node.until_ready().await?;
    }
    Ok(())
}

/// Stops all nodes.
pub(super) async fn stop_all(nodes: &mut [Node]) -> anyhow::Result<()> {
    for node in nodes {
        node.stop().await?;
    }
    Ok(())
}

/// Writes the lines of a log to a file. While `stalled` is set nothing is read, so that the pipe fills up.
fn keep_log(mut log: impl BufRead, mut file: File, stalled: &AtomicBool) {
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let _ = file.write_all(&line);
        line.clear();
        while stalled.load(Ordering::Relaxed) {
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Sends a GET request and returns the whole response, including its head.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    exchange(address, &request).await
}

/// Finds a free port. Another program could take it before the process does; the process then reports that and exits.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}

//! The real binary, run in a temporary folder: its signals, its output and its exit.

use std::{
    io::{self, PipeReader, Write},
    net::SocketAddr,
    ops::Deref,
    path::Path,
    process::{ExitStatus, Stdio},
};

pub(crate) use rustix::process::Signal;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, kill_process},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use crate::harness::{Endpoint, PATIENCE, folder, replace};

/// The exit code and output of a finished command.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `signalbox` in `dir`, with nothing of this process's environment except `PATH`.
fn signalbox(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    signalbox_through(&[], dir, arguments, environment)
}

/// Like [`signalbox`], started by the command `through`, to which the command line of `signalbox` is appended.
fn signalbox_through(
    through: &[String],
    dir: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Command {
    let binary = env!("CARGO_BIN_EXE_signalbox").to_owned();
    let mut words = through.iter().chain([&binary]);
    let mut command = Command::new(words.next().expect("at least one word"));
    command
        .args(words)
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .envs(std::env::var("PATH").map(|path| ("PATH", path)))
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub(crate) async fn run(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let output = signalbox(dir, arguments, environment).output();
    let output = timeout(PATIENCE, output)
        .await
        .expect("the command ends")
        .expect("the command starts");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is text"),
        stderr: String::from_utf8(output.stderr).expect("stderr is text"),
    }
}

/// A server whose standard error is a pipe that is full from the start, and the other end of the pipe, which nobody
/// reads.
pub(crate) fn launch_with_full_log(
    dir: &Path,
    environment: &[(&str, &str)],
) -> (Child, PipeReader) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("a pipe's flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("a pipe may be told not to block");
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).expect("a pipe may be told to block");
    let child = signalbox(dir, &[], environment).stderr(writer).spawn();
    (child.expect("the server starts"), reader)
}

/// Waits until the reader changes its behaviour. Waits forever if the test has dropped the server without a change.
async fn until_not(does: &mut watch::Receiver<LogReader>, what: LogReader) {
    if does.wait_for(|does| *does != what).await.is_err() {
        std::future::pending().await
    }
}

/// A server in a separate process.
pub(crate) struct Server {
    endpoint: Endpoint,
    pub(crate) dir: tempfile::TempDir,
    child: Child,
    log: watch::Receiver<Vec<String>>,
    reader: watch::Sender<LogReader>,
}

/// The behaviour of the reader of a server's standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogReader {
    Reads,
    /// It keeps the pipe open without reading, so the pipe fills up.
    Stalls,
    /// It closes the pipe.
    Leaves,
}

impl Deref for Server {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Server {
    /// A server with `config` as `platform.toml` in its current folder, on a free port, started without arguments.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(&[], config, &[("WSS_PORT", "0")]).await
    }

    /// Like [`Server::start`], with more files, and with exactly this environment.
    pub(crate) async fn start_with(
        files: &[(&str, &[u8])],
        config: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        Self::launch(files, config, environment)
            .until_listening()
            .await
    }

    /// Waits until it listens.
    pub(crate) async fn until_listening(self) -> Self {
        let mut server = self;
        let line = server.until_log("listening on ").await;
        let (_, address) = line.rsplit_once("listening on ").expect("it was found");
        let address = address.split(['"', ' ']).next().unwrap_or_default();
        server.endpoint.address = address.parse().expect("an address");
        server.until_healthy().await;
        server
    }

    /// Like [`Server::start_with`], without waiting until it listens.
    pub(crate) fn launch(
        files: &[(&str, &[u8])],
        config: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let dir = folder(files);
        replace(dir.path(), "platform.toml", config.as_bytes());
        Self::launch_in(dir, environment)
    }

    /// A server in a folder with everything that it needs.
    pub(crate) fn launch_in(dir: tempfile::TempDir, environment: &[(&str, &str)]) -> Self {
        Self::launch_through(&[], dir, environment)
    }

    /// Like [`Server::launch_in`], started by the command `through`, to which the server's command line is appended.
    pub(crate) fn launch_through(
        through: &[String],
        dir: tempfile::TempDir,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut child = signalbox_through(through, dir.path(), &[], environment)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stderr = child.stderr.take().expect("its stderr is a pipe");
        let (sender, log) = watch::channel(Vec::new());
        let (reader, mut does) = watch::channel(LogReader::Reads);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            loop {
                until_not(&mut does, LogReader::Stalls).await;
                let line = tokio::select! {
                    line = lines.next_line() => line,
                    () = until_not(&mut does, LogReader::Reads) => {
                        if *does.borrow() == LogReader::Leaves {
                            break;
                        }
                        continue;
                    }
                };
                let Ok(Some(line)) = line else { break };
                // Shown if a test fails.
                println!("{line}");
                sender.send_modify(|lines: &mut Vec<String>| lines.push(line));
            }
        });
        let nowhere = SocketAddr::from(([0; 4], 0));
        Self {
            endpoint: Endpoint { address: nowhere },
            dir,
            child,
            log,
            reader,
        }
    }

    /// Replaces its `platform.toml`.
    pub(crate) fn configure(&self, config: &str) {
        replace(self.dir.path(), "platform.toml", config.as_bytes());
    }

    /// Waits for a line of the log that contains `text`, and returns it.
    pub(crate) async fn until_log(&self, text: &str) -> String {
        let mut log = self.log.clone();
        let found = log.wait_for(|lines| lines.iter().any(|line| line.contains(text)));
        let lines = timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("the log does not contain: {text}"))
            .unwrap_or_else(|_| panic!("the server exited without logging: {text}"));
        let line = lines.iter().find(|line| line.contains(text));
        line.expect("it was found").clone()
    }

    /// The lines of the log, updated as they arrive.
    pub(crate) fn follow_log(&self) -> watch::Receiver<Vec<String>> {
        self.log.clone()
    }

    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process id"), signal).expect("the signal is sent");
    }

    /// Sets the behaviour of the log reader, which reads at first.
    pub(crate) fn let_log_reader(&self, does: LogReader) {
        self.reader.send_replace(does);
    }

    /// Waits until it has exited.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("the server ends")
            .expect("the exit status is known")
    }

    /// Waits until it has exited, and reads the rest of its log.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let status = self.ended().await;
        let rest = async { while self.log.changed().await.is_ok() {} };
        timeout(PATIENCE, rest).await.expect("its log ends");
        status
    }
}

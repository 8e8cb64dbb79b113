//! The real binary: started in a folder of its own, signalled, and read.

use std::{
    net::SocketAddr,
    ops::Deref,
    path::Path,
    process::{ExitStatus, Stdio},
};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use crate::harness::{Endpoint, PATIENCE, folder, replace};

/// What a finished command left.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `signalbox` in `dir` with nothing of this process's environment but the path.
fn signalbox(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    signalbox_through(&[], dir, arguments, environment)
}

/// The same, started by the command `through`, which becomes what is appended to it.
fn signalbox_through(
    through: &[String],
    dir: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Command {
    let binary = env!("CARGO_BIN_EXE_signalbox").to_owned();
    let mut words = through.iter().chain([&binary]);
    let mut command = Command::new(words.next().expect("one word at least"));
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

/// A server in a process of its own.
pub(crate) struct Server {
    endpoint: Endpoint,
    pub(crate) dir: tempfile::TempDir,
    child: Child,
    log: watch::Receiver<Vec<String>>,
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

    /// The same with more files, and with exactly this environment.
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

    /// The same, without waiting until it listens.
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

    /// The same, started by the command `through`, which becomes what is appended to it.
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
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // Shown where a test fails.
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
            .unwrap_or_else(|_| panic!("the log does not say: {text}"))
            .unwrap_or_else(|_| panic!("the server ended and did not say: {text}"));
        let line = lines.iter().find(|line| line.contains(text));
        line.expect("it was found").clone()
    }

    /// The lines of the log, and more as they come.
    pub(crate) fn follow_log(&self) -> watch::Receiver<Vec<String>> {
        self.log.clone()
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// All lines of the log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process id"), signal).expect("the signal is sent");
    }

    /// Waits for its end, and for the rest of its log.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("the server ends")
            .expect("its end is told");
        let rest = async { while self.log.changed().await.is_ok() {} };
        timeout(PATIENCE, rest).await.expect("its log ends");
        status
    }
}

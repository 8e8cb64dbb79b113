//! A server in a separate process whose JSON log can be read, and whose memory can be measured.

use std::ops::Deref;

use serde_json::Value;
use tokio::time::timeout;

use crate::{
    harness::{PATIENCE, folder, replace, with_plugin_cache},
    process::{Server, Signal},
};

/// A server that logs JSON.
pub(crate) struct Logged {
    server: Server,
    /// The command that starts it, and later servers in the same folder.
    through: Vec<String>,
}

impl Deref for Logged {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Logged {
    /// A server with `config` and these files in its folder.
    pub(crate) async fn start(files: &[(&str, &[u8])], config: &str) -> Self {
        Self::start_through(Vec::new(), folder(files), config).await
    }

    /// A server in a folder with its files, started by the command `through`, to which the server's command line is
    /// appended.
    pub(crate) async fn start_through(
        through: Vec<String>,
        dir: tempfile::TempDir,
        config: &str,
    ) -> Self {
        replace(
            dir.path(),
            "platform.toml",
            with_plugin_cache(config).as_bytes(),
        );
        Self::start_in(through, dir, &[]).await
    }

    /// Kills it, and starts another one in the same folder.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(&[]).await
    }

    /// Like [`Logged::restart`], with additional environment variables.
    pub(crate) async fn restart_with(self, environment: &[(&str, &str)]) -> Self {
        self.server.signal(Signal::KILL);
        self.start_after_end(environment).await
    }

    /// Kills it, and waits until it has ended.
    pub(crate) async fn kill(&mut self) {
        self.server.signal(Signal::KILL);
        self.server.exit().await;
    }

    /// Waits until it has ended, and starts another one in the same folder.
    pub(crate) async fn start_after_end(mut self, environment: &[(&str, &str)]) -> Self {
        self.server.exit().await;
        let empty = tempfile::tempdir().expect("a temporary folder");
        let dir = std::mem::replace(&mut self.server.dir, empty);
        Self::start_in(self.through, dir, environment).await
    }

    async fn start_in(
        through: Vec<String>,
        dir: tempfile::TempDir,
        environment: &[(&str, &str)],
    ) -> Self {
        let usual = [
            ("WSS_PORT", "0"),
            ("LOG_FORMAT", "json"),
            ("RUST_LOG", "info,signalbox_plugin_runtime::loader=debug"),
        ];
        let environment = [&usual, environment].concat();
        let server = Server::launch_through(&through, dir, &environment);
        Self {
            server: server.until_listening().await,
            through,
        }
    }

    /// Replaces a file in its folder atomically.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        replace(self.server.dir.path(), name, bytes);
    }

    /// Waits for a line of its log, which may already be there.
    pub(crate) async fn until_line(&self, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_lines(1, holds).await.swap_remove(0)
    }

    /// Waits until its log has this many such lines, and returns all of them.
    pub(crate) async fn until_lines(
        &self,
        count: usize,
        holds: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let mut log = self.server.follow_log();
        let mut found = Vec::new();
        let enough = log.wait_for(|lines| {
            found = matching(lines, &holds);
            found.len() >= count
        });
        timeout(PATIENCE, enough)
            .await
            .unwrap_or_else(|_| panic!("the log did not reach {count} such lines"))
            .expect("the server runs");
        found
    }

    /// The lines of its log so far for which `holds` is true.
    pub(crate) fn lines(&self, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        matching(&self.server.log(), holds)
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.id()))
            .expect("/proc is readable");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .expect("a number of KiB");
        kib * 1024
    }
}

fn matching(lines: &[String], holds: impl Fn(&Value) -> bool) -> Vec<Value> {
    json_lines(lines).into_iter().filter(holds).collect()
}

/// The lines of a log that are JSON.
pub(crate) fn json_lines(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The message of a log line.
pub(crate) fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

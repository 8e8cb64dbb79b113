//! A server in a process of its own whose log is read: for what it says of plugins, and what it takes.

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
    /// The command that starts it, and those after it in the same folder.
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

    /// The same in a folder with its files, started by the command `through`, which becomes what is appended to it.
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

    /// Ends it at once, and starts another one in the same folder.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(&[]).await
    }

    /// The same, with more in its environment.
    pub(crate) async fn restart_with(self, environment: &[(&str, &str)]) -> Self {
        self.server.signal(Signal::KILL);
        self.start_after_end(environment).await
    }

    /// Ends it at once, and waits until it has.
    pub(crate) async fn kill(&mut self) {
        self.server.signal(Signal::KILL);
        self.server.exit().await;
    }

    /// Waits for its end, and starts another one in the same folder.
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

    /// Replaces a file in its folder as careful tools do.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        replace(self.server.dir.path(), name, bytes);
    }

    /// Waits for a line of its log, which may be there already.
    pub(crate) async fn until_line(&self, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_lines(1, holds).await.swap_remove(0)
    }

    /// Waits until its log has so many such lines, and returns all that it has by then.
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
            .unwrap_or_else(|_| panic!("{count} such lines did not come into the log"))
            .expect("the server runs");
        found
    }

    /// The lines of its log until now.
    pub(crate) fn lines(&self, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        matching(&self.server.log(), holds)
    }

    /// Bytes of its memory that are resident.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.id()))
            .expect("the system tells");
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

/// The message of a line of a log.
pub(crate) fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

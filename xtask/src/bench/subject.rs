//! The subject of a measurement: the relay or the server, each as its own process that lives for one run.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Bench;
use crate::cluster::child::{Child, Event, server_address, wait_for_line};
use crate::cluster::is_ready;

/// Time limit for a node to become ready once it listens.
const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// Interval for checking whether it is ready.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Environment variables that would change the server's configuration, in addition to those with its prefix.
const CONFIGURING_VARIABLES: &[&str] = &[
    "WSS_PORT",
    "REDIS_URI",
    "JWT_SECRET",
    "ENVIRONMENT",
    "RUST_LOG",
];
const CONFIGURING_PREFIX: &str = "SIGNALBOX_";

/// The fields of a JSON line of the server's log.
pub(crate) struct Fields(Value);

impl Fields {
    /// The fields in `line`; `None` if it is not JSON.
    pub(crate) fn of(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok().map(Self)
    }

    /// Returns one field. The fields are in `fields`, or at the top level if the server flattens them.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let nested = self.0.get("fields").and_then(|fields| fields.get(name));
        nested.or_else(|| self.0.get(name))
    }
}

/// A running process that listens. It ends when this value is dropped.
pub(crate) struct Subject {
    child: Child,
    pub(crate) address: SocketAddr,
    /// The load generator's name for the kind of subject.
    pub(crate) target: &'static str,
    log: Receiver<Event>,
}

impl Subject {
    /// Starts the relay: the baseline that the targets refer to.
    pub(crate) fn relay(bench: &Bench) -> anyhow::Result<Self> {
        Self::other(&bench.relay_and_load, "relay", |command| {
            command.args(["relay", "--listen", "127.0.0.1:0"]);
        })
    }

    /// Starts the server, with the plugin from this file in the path of messages, or without a plugin.
    pub(crate) fn server(bench: &Bench, plugin: Option<&Path>) -> anyhow::Result<Self> {
        Self::configured(bench, "platform.toml", &server_config(plugin, None))
    }

    /// Starts the server with the plugin and more sections of the configuration.
    pub(crate) fn with_sections(bench: &Bench, sections: &str) -> anyhow::Result<Self> {
        let config = server_config(Some(&bench.plugin), None);
        Self::configured(bench, "more.toml", &format!("{config}\n{sections}"))
    }

    /// Starts a node called `name` that connects to others through this Redis, with the plugin in the path of messages and
    /// these rules for rooms, and returns when it is ready.
    pub(crate) fn node(
        bench: &Bench,
        name: &str,
        redis_url: &str,
        rules: &str,
    ) -> anyhow::Result<Self> {
        let config = server_config(Some(&bench.plugin), Some((name, redis_url)));
        let file = format!("{name}.toml");
        let node = Self::configured(bench, &file, &format!("{config}\n{rules}"))?;
        let deadline = Instant::now() + READY_TIME_MAX;
        while !is_ready(node.address) {
            ensure!(
                Instant::now() < deadline,
                "a node was not ready within {READY_TIME_MAX:?}"
            );
            thread::sleep(POLL_INTERVAL);
        }
        Ok(node)
    }

    /// Starts the server with this configuration in a file of this name, in a folder that already exists.
    pub(crate) fn configured(bench: &Bench, file: &str, config: &str) -> anyhow::Result<Self> {
        let file = bench.folder().join(file);
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        Self::other(&bench.server, "signalbox", |command| {
            command.args(["run", "--config"]).arg(&file);
            // The folder has no .env file that the server could read.
            command.current_dir(bench.folder());
            for (name, _) in std::env::vars_os() {
                let text = name.to_string_lossy();
                let configures = CONFIGURING_VARIABLES.contains(&text.as_ref());
                if configures || text.starts_with(CONFIGURING_PREFIX) {
                    command.env_remove(&name);
                }
            }
            command.env("LOG_FORMAT", "json");
            // For the CloudWatch that is simulated here.
            command.envs([
                ("AWS_ACCESS_KEY_ID", "bench"),
                ("AWS_SECRET_ACCESS_KEY", "bench"),
                ("AWS_EC2_METADATA_DISABLED", "true"),
            ]);
        })
    }

    /// Starts another server, whose protocol the load generator calls `target`. `configure` adds to its command, which is
    /// run by a shell that raises the soft limit of open files to the hard limit and then becomes the program, so that the
    /// process ID stays the same.
    pub(crate) fn other(
        program: &Path,
        target: &'static str,
        configure: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\""]);
        configure(command.arg(program));
        let (events, log) = channel();
        let child = Child::start(target.to_owned(), command, &events)?;
        drop(events);
        let address = server_address(&log).with_context(|| format!("cannot start {target}"))?;
        Ok(Self {
            child,
            address,
            target,
            log,
        })
    }

    /// The ID of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of output for which `find`, called with the text and the time, returns `Some`.
    pub(crate) fn wait_for_line<T>(
        &self,
        time_max: Duration,
        find: impl Fn(&str, Instant) -> Option<T>,
    ) -> anyhow::Result<T> {
        wait_for_line(&self.log, time_max, find)
    }
}

/// Returns the server's configuration: everything that is off during measurements is off, and all else is the default.
pub(crate) fn server_config(plugin: Option<&Path>, node: Option<(&str, &str)>) -> String {
    let mut config = String::from(
        "[auth]\nmode = \"none\"\n\n[limits]\nmessages_per_second = 0\nconnections_per_user_max = 0\n\n\
         [plugin_cache]\ndir = \"cache\"\n\n[server]\nlisten = \"127.0.0.1:0\"\n",
    );
    if let Some((name, redis_url)) = node {
        config.push_str(&format!(
            "node_id = \"{name}\"\n\n[broker]\nkind = \"redis\"\n\n[redis]\nurl = \"{redis_url}\"\n"
        ));
    }
    if let Some(path) = plugin {
        let path = path.display().to_string();
        let path = path.replace('\\', "\\\\").replace('"', "\\\"");
        config.push_str(&format!(
            "\n[[plugins]]\nname = \"chat\"\npath = \"{path}\"\nevents = [\"chat_message\", \"chat.*\"]\n"
        ));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_is_in_the_configuration_only_when_it_is_wanted() {
        assert!(!server_config(None, None).contains("plugins]]"));
        let config = server_config(Some(Path::new("/a \"b\".wasm")), None);
        assert!(config.contains("path = \"/a \\\"b\\\".wasm\""));
    }
}

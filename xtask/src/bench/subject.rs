//! The subject of a measurement: the relay or the server, each as its own process that lives for one run.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Bench;

/// Time limit for a process to report its address: the first start compiles the plugin.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Number of output lines that are kept to explain a failure.
const LAST_LINES_MAX: usize = 20;

/// Environment variables that would change the server's configuration, in addition to those with its prefix.
const CONFIGURING_VARIABLES: &[&str] = &[
    "WSS_PORT",
    "REDIS_URI",
    "JWT_SECRET",
    "ENVIRONMENT",
    "RUST_LOG",
];
const CONFIGURING_PREFIX: &str = "SIGNALBOX_";

/// A line of output, and when it arrived.
#[derive(Debug)]
pub(crate) struct LogLine {
    /// When it was read.
    pub(crate) at: Instant,
    /// The line.
    pub(crate) text: String,
}

/// The fields of a JSON line of the server's log.
pub(crate) struct Fields(Value);

impl LogLine {
    /// Its fields; `None` if it is not JSON.
    pub(crate) fn fields(&self) -> Option<Fields> {
        serde_json::from_str(&self.text).ok().map(Fields)
    }
}

impl Fields {
    /// Returns one field. The fields are in `fields`, or at the top level if the server flattens them.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let nested = self.0.get("fields").and_then(|fields| fields.get(name));
        nested.or_else(|| self.0.get(name))
    }
}

/// A running process that listens. It ends when this value is dropped.
pub(crate) struct Subject {
    child: Child,
    address: SocketAddr,
    target: &'static str,
    log: Receiver<LogLine>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl Subject {
    /// Starts the relay: the baseline that the targets refer to.
    pub(crate) fn relay(bench: &Bench) -> anyhow::Result<Self> {
        let mut command = with_open_files(&bench.relay_and_load);
        command.args(["relay", "--listen", "127.0.0.1:0"]);
        Self::start(command, "relay")
    }

    /// Starts the server, with the plugin from this file in the path of messages, or without a plugin.
    pub(crate) fn server(bench: &Bench, plugin: Option<&Path>) -> anyhow::Result<Self> {
        Self::configured(bench, "platform.toml", &server_config(plugin, None))
    }

    /// Starts the server with the plugin and these rules for rooms.
    pub(crate) fn with_rooms(bench: &Bench, rules: &str) -> anyhow::Result<Self> {
        let config = format!("{}\n{rules}", server_config(Some(&bench.plugin), None));
        Self::configured(bench, "rooms.toml", &config)
    }

    /// Starts a node called `name` that connects to others through this Redis, with the plugin in the path of messages and
    /// these rules for rooms.
    pub(crate) fn node(
        bench: &Bench,
        name: &str,
        redis_url: &str,
        rules: &str,
    ) -> anyhow::Result<Self> {
        let config = server_config(Some(&bench.plugin), Some((name, redis_url)));
        Self::configured(
            bench,
            &format!("{name}.toml"),
            &format!("{config}\n{rules}"),
        )
    }

    /// Starts the server with the plugin, and without anything that reads metrics.
    pub(crate) fn without_metrics(bench: &Bench) -> anyhow::Result<Self> {
        let config = server_config(Some(&bench.plugin), None) + "\n[metrics]\nprometheus = false\n";
        Self::configured(bench, "silent.toml", &config)
    }

    /// Starts the server with the plugin, with `/metrics`, and with a push every second to the listener at
    /// `cloudwatch`.
    pub(crate) fn with_metrics(bench: &Bench, cloudwatch: SocketAddr) -> anyhow::Result<Self> {
        let config = format!(
            "{}\n[cloudwatch]\nenabled = true\nregion = \"eu-central-1\"\nendpoint = \"http://{cloudwatch}\"\ninterval = \"1s\"\n",
            server_config(Some(&bench.plugin), None)
        );
        Self::configured(bench, "watched.toml", &config)
    }

    /// Starts the server with this configuration in a file of this name, in a folder that already exists.
    pub(crate) fn configured(bench: &Bench, file: &str, config: &str) -> anyhow::Result<Self> {
        let file = bench.folder().join(file);
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = with_open_files(&bench.server);
        // The folder has no .env file that the server could read.
        command
            .args(["run", "--config"])
            .arg(&file)
            .current_dir(bench.folder());
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited {
            let text = name.to_string_lossy();
            if text.starts_with(CONFIGURING_PREFIX)
                || CONFIGURING_VARIABLES.contains(&text.as_ref())
            {
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
        Self::start(command, "signalbox")
    }

    /// Starts another server, whose protocol the load generator calls `target`. `configure` adds to its command.
    pub(crate) fn other(
        program: &Path,
        target: &'static str,
        configure: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let mut command = with_open_files(program);
        configure(&mut command);
        Self::start(command, target)
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ID of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The load generator's name for the kind of subject.
    pub(crate) fn target(&self) -> &'static str {
        self.target
    }

    /// Waits for a line of output for which `find` returns `Some`.
    pub(crate) fn wait_for_line<T>(
        &self,
        time_max: Duration,
        find: impl Fn(&LogLine) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + time_max;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = find(&line) {
                        return Ok(found);
                    }
                }
                Err(_) => bail!(
                    "the line did not come within {time_max:?}; the last output was:\n{}",
                    self.last_lines()
                ),
            }
        }
    }

    fn start(mut command: Command, target: &'static str) -> anyhow::Result<Self> {
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.with_context(|| format!("cannot start the {target} process"))?;
        let (sender, log) = channel();
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stdout) = child.stdout.take() {
            read_lines(stdout, sender.clone(), Arc::clone(&last_lines));
        }
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, sender, Arc::clone(&last_lines));
        }
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut subject = Self {
            child,
            address: unknown,
            target,
            log,
            last_lines,
        };
        let address = subject.wait_for_line(START_TIME_MAX, |line| listening_address(&line.text));
        subject.address = address
            .with_context(|| format!("the {target} process did not say where it listens"))?;
        Ok(subject)
    }

    fn last_lines(&self) -> String {
        let lines = self
            .last_lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The run is over, whatever the process was doing. Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program through a shell that raises the soft limit of open files to the hard limit and then becomes the
/// program, which keeps the process ID.
fn with_open_files(program: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\""])
        .arg(program);
    command
}

fn read_lines(
    output: impl Read + Send + 'static,
    lines: Sender<LogLine>,
    last: Arc<Mutex<VecDeque<String>>>,
) {
    thread::spawn(move || {
        for text in BufReader::new(output).lines().map_while(Result::ok) {
            let mut kept = last.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == LAST_LINES_MAX {
                kept.pop_front();
            }
            kept.push_back(text.clone());
            drop(kept);
            // Most of the time nobody waits for a line, but the lines must be read anyway.
            let _ = lines.send(LogLine {
                at: Instant::now(),
                text,
            });
        }
    });
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
        let path = path
            .display()
            .to_string()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        config.push_str(&format!(
            "\n[[plugins]]\nname = \"chat\"\npath = \"{path}\"\nevents = [\"chat_message\", \"chat.*\"]\n"
        ));
    }
    config
}

/// The address in a line that contains `listening`, in text or in JSON.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening")?;
    let addresses = |text: &str| {
        let part_of_address = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
        text.split(|c: char| !part_of_address(c))
            .find_map(|word| word.parse::<SocketAddr>().ok())
    };
    // In text the address follows the word; in JSON the fields may come in any order.
    addresses(rest).or_else(|| addresses(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_text_and_in_json() {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 4711)));
        for line in [
            "listening on 127.0.0.1:4711",
            "2026-01-01T20:48:32.123456Z  INFO signalbox: listening addr=127.0.0.1:4711 node=a",
            r#"{"timestamp":"2026-01-01T20:48:32Z","level":"INFO","fields":{"message":"listening","addr":"127.0.0.1:4711"}}"#,
            r#"{"addr":"127.0.0.1:4711","message":"listening on http","timestamp":"2026-01-01T20:48:32Z"}"#,
        ] {
            assert_eq!(listening_address(line), address, "{line}");
        }
        assert_eq!(
            listening_address("listening on [::1]:80"),
            "[::1]:80".parse().ok()
        );
        assert_eq!(listening_address("started on 127.0.0.1:4711"), None);
        assert_eq!(listening_address("listening soon, at 20:48:32"), None);
    }

    #[test]
    fn the_plugin_is_in_the_configuration_only_when_it_is_wanted() {
        assert!(!server_config(None, None).contains("plugins]]"));
        assert!(
            server_config(Some(Path::new("/a \"b\".wasm")), None)
                .contains("path = \"/a \\\"b\\\".wasm\"")
        );
    }
}

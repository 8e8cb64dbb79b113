//! A server that waits for a plugin to be pushed.

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::signalbox::{ADMIN_KEY, Signalbox};
use crate::cluster::child::{Child, Event};

/// Time for a server to listen, on a machine that is busy.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// A server. It ends with this value.
pub(super) struct Node {
    _child: Child,
    pub(super) address: SocketAddr,
    /// Keeps its log from standing still: whoever sends lines needs somebody who could read them.
    _log: Receiver<Event>,
}

impl Node {
    /// A server that knows `plugin` and has no file of it, so that messages go on without it.
    pub(super) fn start(signalbox: &Signalbox, plugin: &str) -> anyhow::Result<Self> {
        let folder = signalbox.folder(&format!("server-of-{plugin}"));
        fs::create_dir_all(&folder)?;
        // A debug build on a busy machine: what is looked at here is whether it works, not how fast.
        // The client is silent while its plugin is built, and does not answer pings meanwhile.
        let config = format!(
            r#"
[server]
idle_timeout = "30m"
[admin]
key = "{ADMIN_KEY}"
[[plugins]]
name = "{plugin}"
path = "not-there-yet.wasm"
events = ["note", "{plugin}.*"]
on_failure = "pass"
call_cpu_max = "1s"
call_time_max = "5s"
"#
        );
        fs::write(folder.join("platform.toml"), config)?;
        let mut command = signalbox.command(&folder);
        command
            .args(["run", "--config", "platform.toml"])
            .env("WSS_PORT", "0");
        let (events, log) = mpsc::channel();
        let child = Child::start(plugin.to_owned(), command, &events)?;
        drop(events);
        let address = address(&log)?;
        Ok(Self {
            _child: child,
            address,
            _log: log,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Where it says that it listens.
fn address(log: &Receiver<Event>) -> anyhow::Result<SocketAddr> {
    let end = Instant::now() + START_TIME_MAX;
    let mut said = String::new();
    while let Ok(event) = log.recv_timeout(end.saturating_duration_since(Instant::now())) {
        let Event::Line { text, .. } = event else {
            continue;
        };
        if let Some((_, address)) = text.split_once("listening on ") {
            let address = address.split(['"', ' ']).next().unwrap_or_default();
            return address
                .parse()
                .with_context(|| format!("no address: {text}"));
        }
        said += &text;
        said.push('\n');
    }
    bail!("the server does not listen:\n{said}")
}

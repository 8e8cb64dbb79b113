//! A server that waits for a plugin to be pushed.

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use super::signalbox::{ADMIN_KEY, PUSH_TIME_MAX, Signalbox};
use crate::cluster::child::{Child, Event, server_address, wait_for_line};

/// Time limit for a line that must come.
const LINE_TIME_MAX: Duration = Duration::from_secs(120);

/// A server. It is killed when this value is dropped.
pub(super) struct Node {
    _child: Child,
    pub(super) address: SocketAddr,
    url: String,
    /// Shared, because a plugin may be pushed while another thread sends messages.
    log: Mutex<Receiver<Event>>,
}

/// The server's configuration before anything is pushed to it.
pub(super) struct Served<'a> {
    /// The plugins, in this order.
    pub(super) plugins: &'a [String],
    /// The event type that they see in addition to their own.
    pub(super) event_type: &'static str,
    /// The `on_failure` setting, for messages on which they fail.
    pub(super) on_failure: &'static str,
    /// Whether each has one instance, which hands its memory over.
    pub(super) single: bool,
}

impl Node {
    /// Starts a server called `name` that has plugins configured, but no files of them.
    pub(super) fn start(
        signalbox: &Signalbox,
        name: &str,
        served: &Served<'_>,
    ) -> anyhow::Result<Self> {
        let folder = signalbox.folder(&format!("server-of-{name}"));
        fs::create_dir_all(&folder)?;
        // This is a debug build on a busy machine: the tests check whether it works, not how fast. The client is silent
        // while its plugin is built, and does not answer pings meanwhile.
        let mut config = format!(
            "[server]\nidle_timeout = \"30m\"\n[admin]\nkey = \"{ADMIN_KEY}\"\n[events]\nclient = [\"{}\"]\n\
             [plugin_cache]\ndir = {:?}\n",
            served.event_type,
            signalbox.compiled_plugins(),
        );
        let plugins = served.plugins.iter();
        config.extend(plugins.map(|plugin| entry(plugin, served)));
        fs::write(folder.join("platform.toml"), config)?;
        let mut command = signalbox.command(&folder);
        command
            .args(["run", "--config", "platform.toml"])
            .env("WSS_PORT", "0");
        let (events, log) = mpsc::channel();
        let child = Child::start(name.to_owned(), command, &events)?;
        drop(events);
        let address = server_address(&log)?;
        Ok(Self {
            _child: child,
            address,
            url: format!("http://{address}"),
            log: Mutex::new(log),
        })
    }

    /// The variables with which `signalbox plugin push` and similar commands find the server.
    pub(super) fn access(&self) -> [(&str, &str); 2] {
        [
            ("SIGNALBOX_ADMIN_KEY", ADMIN_KEY),
            ("SIGNALBOX_URL", &self.url),
        ]
    }

    /// Waits for a line of its log that contains all of `parts`.
    pub(super) fn wait_for_line(&self, parts: &[&str]) -> anyhow::Result<()> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let has_all = |line: &str, _| parts.iter().all(|part| line.contains(part)).then_some(());
        wait_for_line(&log, LINE_TIME_MAX, has_all)
            .with_context(|| format!("no line of the server's log has {parts:?}"))
    }
}

fn entry(plugin: &str, served: &Served<'_>) -> String {
    let Served {
        event_type,
        on_failure,
        single,
        ..
    } = served;
    let instances = if *single {
        "instances = \"single\"\nhandover_time_max = \"10s\"\n"
    } else {
        ""
    };
    format!(
        r#"
[[plugins]]
name = "{plugin}"
path = "{plugin}.wasm"
events = ["{event_type}", "{plugin}.*"]
on_failure = "{on_failure}"
call_cpu_max = "10s"
call_time_max = "25s"
compile_time_max = "{PUSH_TIME_MAX}"
{instances}"#
    )
}

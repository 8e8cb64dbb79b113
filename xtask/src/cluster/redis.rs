//! The Redis that connects the nodes: without persistence, on a free port of the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::Sender;

use anyhow::Context as _;

use super::child::{Child, Event};
use crate::temp::TempDir;

/// A server and its URL.
pub(crate) struct Redis {
    /// The process.
    pub(crate) child: Child,
    /// The URL that nodes connect to.
    pub(crate) url: String,
    /// Its folder, which must exist as long as it runs.
    pub(crate) folder: TempDir,
}

impl Redis {
    /// Starts a server. Nodes wait for it by themselves.
    pub(crate) fn start(events: &Sender<Event>) -> anyhow::Result<Self> {
        let folder = TempDir::new("cluster").context("cannot create a temporary folder")?;
        // Another program could take the port before Redis does; Redis then reports that and exits.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .context("there is no free port")?
            .port();
        Ok(Self {
            child: Child::start("redis".to_owned(), command(port, folder.path()), events)?,
            url: format!("redis://127.0.0.1:{port}"),
            folder,
        })
    }
}

fn command(port: u16, folder: &Path) -> Command {
    let mut command = Command::new("redis-server");
    // Ctrl-C on the terminal does not reach it.
    command.current_dir(folder).process_group(0);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
    command
}

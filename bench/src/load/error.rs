//! What stops a run.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// What can go wrong before or during a run. Lost messages are no errors: they are in the report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The URL is not `ws://host:port/path`.
    #[error(
        "`{0}` is not a URL of the form ws://host:port/path (TLS is not supported; measure behind the proxy)"
    )]
    Url(String),
    /// The host has no address.
    #[error("the host of `{url}` cannot be resolved: {source}")]
    Resolve {
        /// The URL as given.
        url: String,
        /// The resolver's answer.
        source: std::io::Error,
    },
    /// The host is not this machine.
    #[error(
        "{0} is not a loopback address; load belongs on a server of your own: add --allow-remote if this is one"
    )]
    Remote(IpAddr),
    /// The options do not name exactly one mode, or a number is out of range.
    #[error("{0}")]
    Options(&'static str),
    /// The payload has no room for the send time and the sequence number.
    #[error("a payload of {payload_bytes} bytes is too small; --payload must be at least {least}")]
    PayloadTooSmall {
        /// What was asked for.
        payload_bytes: usize,
        /// The least that works.
        least: usize,
    },
    /// Connecting failed.
    #[error("cannot open connection {index} of {count} to {address}: {reason}")]
    Connect {
        /// Which connection, from 0.
        index: usize,
        /// How many were wanted.
        count: usize,
        /// Where to.
        address: SocketAddr,
        /// What the system or the server said.
        reason: String,
    },
    /// Not all connections were confirmed, as members of the room or as there.
    #[error(
        "{missing} of {count} connections were not confirmed after {seconds} s; the server said: {said}"
    )]
    Join {
        /// Connections without a confirmation.
        missing: usize,
        /// All connections.
        count: usize,
        /// How long was waited, in seconds.
        seconds: u64,
        /// The first errors that came.
        said: String,
    },
    /// `/proc` has nothing readable about the process.
    #[error(
        "cannot read /proc/{pid}/{what}; --cpu-pid must be the id of a running process on this machine"
    )]
    Process {
        /// The process.
        pid: u32,
        /// The file.
        what: &'static str,
    },
    /// The system did not give a thread.
    #[error("cannot start the pacing thread: {0}")]
    Thread(std::io::Error),
}

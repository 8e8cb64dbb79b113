//! Errors that stop a run.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// Errors before or during a run. Lost messages are not errors; the report counts them.
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
        /// The requested size, in bytes.
        payload_bytes: usize,
        /// The smallest size that works, in bytes.
        least: usize,
    },
    /// Connecting failed.
    #[error("cannot open connection {index} of {count} to {address}: {reason}")]
    Connect {
        /// Index of the connection, from 0.
        index: usize,
        /// Number of connections that the run opens.
        count: usize,
        /// The server's address.
        address: SocketAddr,
        /// The error of the system or the server's response.
        reason: String,
    },
    /// The server did not answer the greeting, the join or the heartbeat of all connections.
    #[error(
        "{missing} of {count} connections were not confirmed after {seconds} s; the server said: {said}"
    )]
    Join {
        /// Connections without a confirmation.
        missing: usize,
        /// All connections.
        count: usize,
        /// Time waited, in seconds.
        seconds: u64,
        /// The first errors received.
        said: String,
    },
    /// A file of the process under `/proc` cannot be read or parsed.
    #[error(
        "cannot read /proc/{pid}/{what}; --cpu-pid must be the id of a running process on this machine"
    )]
    Process {
        /// ID of the process.
        pid: u32,
        /// Name of the file.
        what: &'static str,
    },
    /// The system could not start a thread.
    #[error("cannot start the pacing thread: {0}")]
    Thread(std::io::Error),
}

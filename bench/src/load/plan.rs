//! A checked run: the servers, the kind of load, the duration.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use super::protocol::{CENTRIFUGE, Protocol, RELAY, SIGNALBOX, SOCKET_IO};

/// The kind of server behind the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// `signalbox-bench relay`: the receiver is fixed by the query string.
    Relay,
    /// A server that speaks the wire protocol of Signalbox.
    Signalbox,
    /// The Socket.IO server of `bench/peers/socketio`.
    SocketIo,
    /// The server on the Go library centrifuge of `bench/peers/centrifuge`.
    Centrifuge,
}

impl Target {
    /// The protocol of this kind of server.
    pub(super) fn protocol(self) -> &'static Protocol {
        match self {
            Self::Relay => &RELAY,
            Self::Signalbox => &SIGNALBOX,
            Self::SocketIo => &SOCKET_IO,
            Self::Centrifuge => &CENTRIFUGE,
        }
    }
}

/// The kind of load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Closed loop: each side of a pair keeps `in_flight` messages in flight to the other.
    Pairs {
        /// Pairs of connections, at least 1.
        pairs: usize,
        /// Messages in flight from each side, at least 1.
        in_flight: usize,
    },
    /// Open loop between pairs: `rate` messages a second over all connections.
    Open {
        /// Connections, an even number.
        connections: usize,
        /// Total messages a second.
        rate: f64,
    },
    /// Open loop in one room: `rate` messages a second, each delivered to every member.
    Room {
        /// Members of the room, at least 2.
        members: usize,
        /// Total messages a second.
        rate: f64,
    },
    /// Connections that send nothing.
    Idle {
        /// Connections, at least 1.
        connections: usize,
    },
}

/// The location of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its address.
    pub address: SocketAddr,
    /// `Host` header.
    pub host: String,
    /// Path and query of the URL.
    pub path: String,
}

/// A run whose options have been checked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The servers, at least one. Connections are assigned to them in turn, so with two servers the sides of a pair are
    /// on different ones.
    pub sites: Vec<Site>,
    /// The kind of server.
    pub target: Target,
    /// The kind of load.
    pub mode: Mode,
    /// Time before the measurement, which is not counted.
    pub warmup: Duration,
    /// Time that is measured. In idle mode, the time for which the connections are held.
    pub duration: Duration,
    /// Whether the measured time ends early when standard input ends.
    pub until_input_ends: bool,
    /// Size of a payload in bytes.
    pub payload_bytes: usize,
    /// Whether each message asks the server for a confirmation, which must come.
    pub acks: bool,
    /// IDs of the server's processes.
    pub cpu_pids: Vec<u32>,
    /// Prefix of user IDs.
    pub user_prefix: String,
}

impl Plan {
    /// Connections that the run opens.
    #[must_use]
    pub fn connections(&self) -> usize {
        match self.mode {
            Mode::Pairs { pairs, .. } => 2 * pairs,
            Mode::Open { connections, .. } | Mode::Idle { connections } => connections,
            Mode::Room { members, .. } => members,
        }
    }

    /// The user ID of a connection.
    #[must_use]
    pub fn user(&self, index: usize) -> String {
        format!("{}-{index}", self.user_prefix)
    }

    /// The name of the room.
    #[must_use]
    pub fn room(&self) -> String {
        format!("{}-room", self.user_prefix)
    }

    /// The server that a connection goes to.
    #[must_use]
    pub fn site(&self, index: usize) -> &Site {
        &self.sites[index % self.sites.len()]
    }

    /// Path and query of a connection's upgrade.
    #[must_use]
    pub fn request_target(&self, index: usize) -> String {
        let path = &self.site(index).path;
        let separator = if path.contains('?') { '&' } else { '?' };
        let user = self.user(index);
        let more = match self.mode {
            _ if !self.target.protocol().receiver_in_query => String::new(),
            Mode::Idle { .. } => String::new(),
            Mode::Room { .. } => format!("&room={}", self.room()),
            Mode::Pairs { .. } | Mode::Open { .. } => format!("&peer={}", self.user(index ^ 1)),
        };
        format!("{path}{separator}userId={user}{more}")
    }
}

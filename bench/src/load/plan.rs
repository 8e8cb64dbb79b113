//! A checked run: the servers, the kind of load, the duration.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use super::options::LoadArgs;
use super::protocol::{CENTRIFUGE, Protocol, RELAY, SIGNALBOX, SOCKET_IO};

/// The kind of server behind the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Target {
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
pub(super) enum Mode {
    /// Closed loop: each side of a pair keeps `in_flight` messages in flight to the other.
    Pairs { pairs: usize, in_flight: usize },
    /// Open loop between pairs: `rate` messages a second over all connections, whose number is even.
    Open { connections: usize, rate: f64 },
    /// Open loop in one room: `rate` messages a second, each delivered to every member.
    Room { members: usize, rate: f64 },
    /// Connections that send nothing.
    Idle { connections: usize },
}

impl Mode {
    /// Its name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pairs { .. } => "pairs",
            Self::Open { .. } => "open",
            Self::Room { .. } => "room",
            Self::Idle { .. } => "idle",
        }
    }
}

/// The location of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) address: SocketAddr,
    /// `Host` header.
    pub(super) host: String,
    /// Path and query of the URL.
    pub(super) path: String,
}

/// A run whose options have been checked.
#[derive(Debug)]
pub struct Plan {
    /// The servers, at least one. Connections are assigned to them in turn, so with two servers the sides of a pair are
    /// on different ones.
    pub(super) sites: Vec<Site>,
    pub(super) mode: Mode,
    pub(super) options: LoadArgs,
}

impl Plan {
    /// Time that is measured. In idle mode, the time for which the connections are held.
    pub(super) fn duration(&self) -> Duration {
        match self.mode {
            Mode::Idle { .. } => self.options.hold,
            _ => self.options.duration,
        }
    }

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
    pub(super) fn user(&self, index: usize) -> String {
        format!("{}-{index}", self.options.user_prefix)
    }

    /// The name of the room.
    pub(super) fn room(&self) -> String {
        format!("{}-room", self.options.user_prefix)
    }

    /// The server that a connection goes to.
    pub(super) fn site(&self, index: usize) -> &Site {
        &self.sites[index % self.sites.len()]
    }

    /// Path and query of a connection's upgrade.
    pub(super) fn request_target(&self, index: usize) -> String {
        let path = &self.site(index).path;
        let separator = if path.contains('?') { '&' } else { '?' };
        let user = self.user(index);
        let more = match self.mode {
            _ if !self.options.target.protocol().receiver_in_query => String::new(),
            Mode::Idle { .. } => String::new(),
            Mode::Room { .. } => format!("&room={}", self.room()),
            Mode::Pairs { .. } | Mode::Open { .. } => format!("&peer={}", self.user(index ^ 1)),
        };
        format!("{path}{separator}userId={user}{more}")
    }
}

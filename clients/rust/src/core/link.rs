//! The way to the server, and what belongs to a connection.

use std::time::Duration;

use tokio::time::Instant;

use super::{Alarm, Backoff, Moment, Timers};

/// The way to the server.
#[derive(Debug)]
pub(super) enum Link {
    /// The client was not connected yet, or is closed.
    Down,
    /// The client waits for the next attempt.
    Waiting(Option<Alarm>),
    /// The token callback runs before an attempt.
    Token,
    /// The task opens a connection.
    Dialing(Option<Alarm>),
    /// `welcome` has not come yet.
    Greeting(Option<Alarm>),
    Up(Box<Connection>),
}

/// A connection that is welcome.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) heartbeat: Heartbeat,
    pub(super) renewal: Renewal,
    pub(super) renewing: Option<Alarm>,
    pub(super) stable: Option<Alarm>,
    pub(super) settling: Option<Alarm>,
    pub(super) frame_bytes_max: usize,
}

/// The heartbeat of a connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    pub(super) interval: Duration,
    pub(super) heard: Moment,
    pub(super) due: Moment,
    /// Whether a sign of life is overdue.
    pub(super) asked: bool,
    pub(super) alarm: Option<Alarm>,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, now: Moment) -> Self {
        Self {
            interval,
            heard: now,
            due: now,
            asked: false,
            alarm: None,
        }
    }

    pub(super) fn stop(&mut self, timers: &mut Timers) {
        timers.cancel(&mut self.alarm);
    }
}

/// The step of a renewal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Step {
    #[default]
    Idle,
    /// A timer runs.
    Waiting,
    Fetching,
    Sent,
}

/// The renewal of the token of a connection. Its timer ends with the connection.
#[derive(Debug)]
pub(super) struct Renewal {
    pub(super) step: Step,
    pub(super) replaced: Option<Instant>,
    /// The time that is left to the token, if the server has announced its end.
    pub(super) next: Option<Duration>,
    pub(super) backoff: Backoff,
}

impl Renewal {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            step: Step::Idle,
            replaced: None,
            next: None,
            backoff,
        }
    }
}

//! How attempts and connections end, and what follows (section 3 of SPEC.md).

use std::time::Duration;

/// The client obeys no longer `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What the client does after the end of an attempt or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Reconnect,
    NewToken,
    GiveUp,
}

/// How an attempt or a connection ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) reason: String,
    /// The close code of the server.
    pub(crate) code: Option<u16>,
    /// The status of a refusal.
    pub(crate) status: Option<u16>,
    /// The code in the body of that refusal.
    pub(crate) error_code: Option<String>,
    /// The least time until the next attempt.
    pub(crate) retry_after: Duration,
    /// Whether the server does not speak the protocol.
    pub(crate) unsupported: bool,
    /// Whether there will be no token.
    pub(crate) denied: bool,
}

impl Ending {
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }

    pub(crate) fn next(&self) -> Next {
        if self.unsupported || self.denied {
            return Next::GiveUp;
        }
        match (self.code, self.status) {
            (Some(4500 | 4504), _) | (_, Some(401)) => Next::NewToken,
            (Some(4501..=4999 | 1002 | 1003 | 1007..=1010), _)
            | (_, Some(400 | 403 | 404 | 405 | 410 | 426)) => Next::GiveUp,
            _ => Next::Reconnect,
        }
    }
}

/// Returns the time in a `Retry-After` header, at most a minute; zero if it is no number.
pub(crate) fn retry_after(header: &str) -> Duration {
    let seconds = header.trim().parse().unwrap_or(0);
    Duration::from_secs(seconds).min(RETRY_AFTER_MAX)
}

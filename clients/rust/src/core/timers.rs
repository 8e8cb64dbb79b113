//! The timers of a client: a queue of deadlines, of which the task waits for the first.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// What happens at a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The attempt to connect takes too long.
    Attempt,
    /// The wait for the next attempt is over.
    Backoff,
    /// The connection has lasted.
    Stable,
    /// Messages no longer wait for the rooms.
    Settle,
    /// The next check of the heartbeat.
    Heartbeat,
    /// The token callback takes too long.
    Token,
    /// The token callback of a room takes too long.
    RoomToken(String),
    /// The next step of the renewal of the token.
    Renewal,
    /// The call with this ID has no answer.
    Answer(String),
    /// The call with this ID is sent again.
    Retry(String),
    /// The room is joined again.
    Join(String),
}

/// A deadline that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alarm(Instant, u64);

/// All deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    count: u64,
    set: BTreeMap<Alarm, Timer>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, timer: Timer) -> Alarm {
        self.count += 1;
        let alarm = Alarm(at, self.count);
        self.set.insert(alarm, timer);
        alarm
    }

    pub(crate) fn cancel(&mut self, alarm: &mut Option<Alarm>) {
        if let Some(alarm) = alarm.take() {
            self.set.remove(&alarm);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.set.clear();
    }

    pub(crate) fn first(&self) -> Option<Instant> {
        self.set.first_key_value().map(|(alarm, _)| alarm.0)
    }

    /// Takes the first timer whose deadline has passed.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let first = self.set.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

//! Decides when a client is pinged, and when it counts as dead.

use std::time::Duration;

use signalbox_config::ServerConfig;
use tokio::time::Instant;

/// A client that reads fewer bytes per second does not count as reading.
const SLOWEST_READER_BYTES_PER_SECOND: u64 = 16 << 10;
/// Of the bytes sent before a ping, the maximum that buffers between the server and a client can hold.
const AHEAD_BYTES_MAX: u64 = 2 << 20;
/// A timer that is late by more than this share of `server.idle_timeout` shows that the process did not run.
const LATE_SHARE: u32 = 4;
/// The longest delay of a timer that is attributed to load on the machine.
const LATE_MAX: Duration = Duration::from_secs(1);

/// The liveness of a client. All times are arguments; it never reads the clock.
#[derive(Debug)]
pub(super) struct Heartbeat {
    last_heard: Instant,
    last_pinged: Instant,
    /// Bytes that had been written to the client when it was last heard.
    written_when_heard: u64,
    /// Bytes written between that moment and the first unanswered ping.
    ahead_of_ping: Option<u64>,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing is due.
    Rest,
    /// Ping the client.
    Ping,
    /// Close the connection.
    Idle,
}

impl Heartbeat {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_heard: now,
            last_pinged: now,
            written_when_heard: 0,
            ahead_of_ping: None,
        }
    }

    pub(super) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Notes that the client sent or read something, when `written` bytes had been written to it.
    pub(super) fn heard(&mut self, now: Instant, written: u64) {
        self.last_heard = now;
        self.written_when_heard = written;
        self.ahead_of_ping = None;
    }

    /// Notes that a ping is sent, after `written` bytes.
    pub(super) fn pinged(&mut self, now: Instant, written: u64) {
        self.last_pinged = now;
        let ahead = written.saturating_sub(self.written_when_heard);
        self.ahead_of_ping.get_or_insert(ahead);
    }

    /// Whether a ping is waiting for its answer.
    pub(super) fn is_asking(&self) -> bool {
        self.ahead_of_ping.is_some()
    }

    /// When the next step may be due.
    pub(super) fn deadline(&self, server: &ServerConfig) -> Instant {
        self.ping_due(server).min(self.idle_due(server))
    }

    /// Returns the step that is due now. This call was due at `due`: if it comes much later, the process was stopped
    /// meanwhile, and the client may have had no chance to be heard. The client then gets another ping, and time to
    /// answer it.
    pub(super) fn next_beat(&mut self, now: Instant, due: Instant, server: &ServerConfig) -> Beat {
        if was_stopped(now, due, server) {
            self.last_heard = self
                .last_heard
                .max(now - server.ping_interval.min(now - due));
            return Beat::Ping;
        }
        if now >= self.idle_due(server) {
            return Beat::Idle;
        }
        if now >= self.ping_due(server) {
            return Beat::Ping;
        }
        Beat::Rest
    }

    fn ping_due(&self, server: &ServerConfig) -> Instant {
        self.last_heard.max(self.last_pinged) + server.ping_interval
    }

    fn idle_due(&self, server: &ServerConfig) -> Instant {
        let ahead = self.ahead_of_ping.unwrap_or(0).min(AHEAD_BYTES_MAX);
        let reading = Duration::from_millis(ahead * 1_000 / SLOWEST_READER_BYTES_PER_SECOND);
        self.last_heard + server.idle_timeout + reading
    }
}

/// Whether a call that was due at `due` and comes at `now` shows that the process did not run meanwhile.
pub(super) fn was_stopped(now: Instant, due: Instant, server: &ServerConfig) -> bool {
    let tolerance = (server.idle_timeout / LATE_SHARE).min(LATE_MAX);
    now.saturating_duration_since(due) > tolerance
}

#[cfg(test)]
mod tests {
    use signalbox_config::Config;

    use super::*;

    fn server() -> ServerConfig {
        Config::default().server
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_client_is_pinged_and_then_given_up() {
        let (server, start) = (server(), Instant::now());
        let mut heartbeat = Heartbeat::new(start);
        let mut beats = Vec::new();
        loop {
            let due = heartbeat.deadline(&server);
            let beat = heartbeat.next_beat(due, due, &server);
            beats.push(((due - start).as_secs(), beat));
            match beat {
                Beat::Ping => heartbeat.pinged(due, 0),
                Beat::Idle => break,
                Beat::Rest => {}
            }
        }
        assert_eq!(
            beats,
            [(25, Beat::Ping), (50, Beat::Ping), (60, Beat::Idle)]
        );
    }

    #[test]
    fn a_client_that_is_heard_is_left_alone() {
        let (server, start) = (server(), Instant::now());
        let mut heartbeat = Heartbeat::new(start);
        heartbeat.pinged(start + seconds(25), 0);
        heartbeat.heard(start + seconds(59), 0);
        assert!(!heartbeat.is_asking());
        let at = start + seconds(61);
        assert_eq!(heartbeat.next_beat(at, at, &server), Beat::Rest);
        assert_eq!(heartbeat.deadline(&server), start + seconds(59 + 25));
    }

    #[test]
    fn a_ping_behind_much_data_has_more_time_for_its_answer() {
        let (server, start) = (server(), Instant::now());
        let mut heartbeat = Heartbeat::new(start);
        heartbeat.heard(start, 1 << 20);
        heartbeat.pinged(start + seconds(25), 2 << 20);
        // Bytes after the ping do not extend the time further.
        heartbeat.pinged(start + seconds(50), 9 << 20);
        for (at, beat) in [
            (60, Beat::Rest),
            (74, Beat::Rest),
            (75, Beat::Ping),
            (124, Beat::Idle),
        ] {
            let at = start + seconds(at);
            assert_eq!(heartbeat.next_beat(at, at, &server), beat);
        }
        heartbeat.heard(start, 0);
        heartbeat.pinged(start, u64::MAX);
        let at = start + seconds(60 + 128);
        assert_eq!(heartbeat.next_beat(at, at, &server), Beat::Idle);
    }

    #[test]
    fn after_the_process_was_stopped_a_client_has_time_to_answer_once_more() {
        let (server, start) = (server(), Instant::now());
        for due in [25, 60] {
            let mut heartbeat = Heartbeat::new(start);
            let due = start + seconds(due);
            let now = due + seconds(500);
            assert_eq!(heartbeat.next_beat(now, due, &server), Beat::Ping);
            heartbeat.pinged(now, 0);
            let due = now + server.idle_timeout - server.ping_interval;
            assert_ne!(
                heartbeat.next_beat(due - seconds(1), due - seconds(1), &server),
                Beat::Idle
            );
            assert_eq!(heartbeat.next_beat(due, due, &server), Beat::Idle);
        }
    }
}

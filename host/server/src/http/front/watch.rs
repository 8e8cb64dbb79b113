//! The phase of an HTTP connection, and the time limit of each phase.

use std::sync::{Mutex, MutexGuard, PoisonError};

use signalbox_config::Limits;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::session::ConfigHandle;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpPhase {
    /// Nothing has arrived yet.
    Silent,
    /// A request has begun to arrive, and its headers are incomplete.
    Head,
    /// A request is being answered.
    Busy,
    /// All requests have been answered.
    Idle,
    /// No more requests are served; the client's data is discarded.
    Lingering,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Nothing ever arrived.
    Silent,
    /// The headers took too long.
    Head,
    /// No further request arrived.
    Idle,
    /// The client does not read the response.
    Unread,
    /// Its place is needed for another connection.
    Evicted(HttpPhase),
}

/// Tracks one connection. The stream, the service and the list of all connections update it; the connection's task
/// waits for [`overdue`](Self::overdue).
#[derive(Debug)]
pub(super) struct HttpWatch {
    state: Mutex<WatchState>,
    changed: Notify,
}

#[derive(Debug)]
struct WatchState {
    phase: HttpPhase,
    since: Instant,
    /// When the client stopped reading; `None` if it reads.
    blocked: Option<Instant>,
    /// Whether the last bytes read may end in the middle of another request.
    is_tail_open: bool,
    requests: u32,
    is_evicted: bool,
}

impl HttpWatch {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(WatchState {
                phase: HttpPhase::Silent,
                since: Instant::now(),
                blocked: None,
                is_tail_open: false,
                requests: 0,
                is_evicted: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Notes that `bytes` arrived.
    pub(super) fn read(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.is_tail_open = !(bytes.ends_with(b"\r\n\r\n") || bytes.ends_with(b"\n\n"));
        if matches!(state.phase, HttpPhase::Silent | HttpPhase::Idle) {
            self.enter(&mut state, HttpPhase::Head);
        }
    }

    /// Notes that the client read something.
    pub(super) fn wrote(&self) {
        let mut state = self.state();
        if state.blocked.take().is_some() {
            self.changed.notify_one();
        }
    }

    /// Notes that the client is not reading.
    pub(super) fn cannot_write(&self) {
        let mut state = self.state();
        if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// Notes a request, with or without a body, and returns its number, from 1.
    pub(super) fn asked(&self, has_body: bool) -> u32 {
        let mut state = self.state();
        if has_body {
            // The last bytes may be part of the body.
            state.is_tail_open = false;
        }
        state.requests = state.requests.saturating_add(1);
        self.enter(&mut state, HttpPhase::Busy);
        state.requests
    }

    /// Notes that the response is complete.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        let next = if state.is_tail_open {
            HttpPhase::Head
        } else {
            HttpPhase::Idle
        };
        self.enter(&mut state, next);
    }

    /// Starts over after the PROXY protocol header, before the first request.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        self.enter(&mut state, HttpPhase::Silent);
    }

    /// Notes that nothing more will be served.
    pub(super) fn lingers(&self) {
        let mut state = self.state();
        state.blocked = None;
        self.enter(&mut state, HttpPhase::Lingering);
    }

    /// Makes the connection end, because its place is needed.
    pub(super) fn evict(&self) {
        self.state().is_evicted = true;
        self.changed.notify_one();
    }

    /// Since when the connection has been silent; `None` if it is being served.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let state = self.state();
        match state.phase {
            HttpPhase::Busy => state.blocked,
            _ => Some(state.since),
        }
    }

    /// Whether a request has arrived.
    pub(super) fn has_asked(&self) -> bool {
        self.state().requests > 0
    }

    /// Waits until the connection has to end.
    pub(super) async fn overdue(&self, live: &ConfigHandle) -> Overdue {
        loop {
            let due = self.state().due(&live.load().limits);
            match due {
                Some((at, overdue)) if at <= Instant::now() => return overdue,
                Some((at, _)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn enter(&self, state: &mut WatchState, phase: HttpPhase) {
        state.phase = phase;
        state.since = Instant::now();
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchState {
    fn due(&self, limits: &Limits) -> Option<(Instant, Overdue)> {
        let http = &limits.http;
        if self.is_evicted {
            return Some((self.since, Overdue::Evicted(self.phase)));
        }
        if let Some(blocked) = self.blocked {
            return Some((blocked + http.write_timeout, Overdue::Unread));
        }
        match self.phase {
            HttpPhase::Silent => Some((self.since + limits.upgrade_timeout, Overdue::Silent)),
            HttpPhase::Head => Some((self.since + http.header_time_max, Overdue::Head)),
            HttpPhase::Idle => Some((self.since + http.idle_timeout, Overdue::Idle)),
            HttpPhase::Busy | HttpPhase::Lingering => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(watch: &HttpWatch) -> Option<Overdue> {
        let due = watch.state().due(&Limits::default());
        due.map(|(_, overdue)| overdue)
    }

    #[tokio::test]
    async fn the_time_for_headers_begins_with_the_first_byte_of_each_request() {
        let watch = HttpWatch::new();
        assert_eq!(due(&watch), Some(Overdue::Silent));
        watch.read(b"GET / HT");
        assert_eq!(due(&watch), Some(Overdue::Head));
        watch.read(b"TP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(watch.asked(false), 1);
        assert_eq!(due(&watch), None, "the handler has its own time");
        watch.answered();
        assert_eq!(due(&watch), Some(Overdue::Idle));
        watch.read(b"G");
        assert_eq!(due(&watch), Some(Overdue::Head));
    }

    #[tokio::test]
    async fn a_request_that_began_behind_another_is_not_taken_for_silence() {
        let watch = HttpWatch::new();
        watch.read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /");
        watch.asked(false);
        watch.answered();
        assert_eq!(due(&watch), Some(Overdue::Head));
        // The end of a body does not begin a request.
        watch.asked(true);
        watch.answered();
        assert_eq!(due(&watch), Some(Overdue::Idle));
    }

    #[tokio::test]
    async fn an_unread_answer_times_out_and_one_that_progresses_does_not() {
        let watch = HttpWatch::new();
        watch.read(b"\r\n\r\n");
        watch.asked(false);
        watch.cannot_write();
        assert_eq!(due(&watch), Some(Overdue::Unread));
        assert!(watch.silent_since().is_some(), "it may be evicted");
        watch.wrote();
        assert_eq!(due(&watch), None);
        assert_eq!(watch.silent_since(), None);
    }
}

//! Attempts, connections, and the states of a client (sections 1 to 4 of SPEC.md).

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::ending::Next;
use super::link::{Connection, Heartbeat, Link, Renewal};
use super::{Backoff, Core, Dial, Effect, Ending, Moment, Timer};
use crate::error::{Error, TokenError, codes};
use crate::events::{Event, Session, State, StateChange, Transport};
use crate::frames::{Place, Welcome};
use crate::options::Credentials;

/// How long messages wait for the rooms after a reconnect.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A token that the server refuses so often is wrong.
const REFUSALS_MAX: u32 = 3;
/// `connect` ends a wait at most this often.
const WAKE_PAUSE: Duration = Duration::from_secs(5);
/// The silence after which the client asks for a sign of life if `welcome` does not say.
const STANDARD_HEARTBEAT: Duration = Duration::from_secs(25);

/// The characters that stay as they are in a query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

impl Core {
    pub(super) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    pub(super) fn connect(&mut self) {
        match &mut self.link {
            Link::Down => {
                self.backoff.reset();
                self.refusals = 0;
                self.begin_attempt();
            }
            Link::Waiting(alarm) => {
                let now = self.now.instant;
                let soon = |at: Instant| now.saturating_duration_since(at) < WAKE_PAUSE;
                if !self.woke.is_some_and(soon) {
                    self.timers.cancel(alarm);
                    self.woke = Some(now);
                    self.begin_attempt();
                }
            }
            Link::Token | Link::Dialing(_) | Link::Greeting(_) | Link::Up(_) => {}
        }
    }

    pub(super) fn close(&mut self) {
        if self.state != State::Closed {
            self.outlet.clear();
            self.effects.push_back(Effect::Close);
            self.shut(change(State::Closed, Ending::default()));
        }
    }

    pub(super) fn begin_attempt(&mut self) {
        self.change(change(State::Connecting, Ending::default()));
        if self.token.is_none() && matches!(self.options.credentials, Credentials::Callback(_)) {
            self.link = Link::Token;
            self.fetch_token();
        } else {
            self.dial();
        }
    }

    /// The token callback has ended.
    pub(super) fn on_token(&mut self, result: Result<String, TokenError>) {
        self.timers.cancel(&mut self.fetching);
        if let Ok(token) = &result {
            self.token = Some(token.clone());
        }
        match (&self.link, result) {
            (Link::Up(_), result) => self.on_new_token(result),
            (Link::Token, Ok(_)) => self.dial(),
            (Link::Down, _) | (_, Ok(_)) => {}
            (_, Err(TokenError::Final(reason))) => {
                let denied = true;
                self.lost(Ending {
                    denied,
                    ..Ending::because(reason)
                });
            }
            (link, Err(TokenError::Later(reason))) => {
                let needed = matches!(link, Link::Token);
                self.report_token_failure(&reason);
                if needed {
                    self.lost(Ending::because(format!(
                        "the token callback failed: {reason}"
                    )));
                }
            }
        }
    }

    fn dial(&mut self) {
        let alarm = self.after(self.options.connect_timeout, Timer::Attempt);
        self.link = Link::Dialing(Some(alarm));
        self.effects.push_back(Effect::Dial(Dial {
            url: self.address(),
            token: self.token.clone(),
            transport: self.choice.begin(self.now.instant),
            receive_bytes_max: self.options.receive_bytes_max,
            answer_timeout: self.options.connect_timeout,
        }));
    }

    /// The URL of the next attempt.
    fn address(&self) -> String {
        let mut url = self.options.url.clone();
        let mut add = |name: &str, value: &str| {
            let separator = if url.contains('?') { '&' } else { '?' };
            let value = utf8_percent_encode(value, UNRESERVED);
            url.push_str(&format!("{separator}{name}={value}"));
        };
        if let Credentials::User(user) = &self.options.credentials {
            add("userId", user);
        }
        if let Some(at) = &self.user {
            add("since", &format!("{}:{}", at.epoch, at.offset));
        }
        url
    }

    pub(super) fn attempt_expired(&mut self) {
        let limit = self.options.connect_timeout;
        let is_open = matches!(self.link, Link::Greeting(_));
        let reason = if is_open && self.choice.transport() == Transport::Sse {
            let reason = format!(
                "a proxy holds back the stream: its head has arrived, but no event within {limit:?}"
            );
            self.report(Error::new(codes::BUFFERED, reason.clone()));
            reason
        } else {
            format!("no connection within {limit:?}")
        };
        self.lost(Ending::because(reason));
    }

    /// The task has opened a connection.
    pub(crate) fn opened(&mut self, now: Moment) {
        self.now = now;
        if let Link::Dialing(alarm) = &mut self.link {
            self.link = Link::Greeting(alarm.take());
        }
    }

    /// The attempt or the connection has ended.
    pub(crate) fn ended(&mut self, now: Moment, ending: Ending) {
        self.now = now;
        if matches!(
            self.link,
            Link::Dialing(_) | Link::Greeting(_) | Link::Up(_)
        ) {
            self.lost(ending);
            self.conclude();
        }
    }

    pub(super) fn welcomed(&mut self, welcome: &Welcome) {
        if let Link::Greeting(alarm) = &mut self.link {
            self.timers.cancel(alarm);
        }
        let announced = Duration::from_millis(welcome.heartbeat_interval_ms);
        let announced = if announced.is_zero() {
            STANDARD_HEARTBEAT
        } else {
            announced
        };
        let interval = self.options.heartbeat_interval.unwrap_or(announced);
        let stable = self.after(self.options.stable_after, Timer::Stable);
        let settling = self.after(SETTLE_TIMEOUT, Timer::Settle);
        self.link = Link::Up(Box::new(Connection {
            heartbeat: Heartbeat::new(interval, self.now),
            renewal: Renewal::new(self.fresh_backoff()),
            renewing: None,
            stable: Some(stable),
            settling: Some(settling),
            frame_bytes_max: welcome.limits.frame_bytes_max,
        }));
        self.begin_heartbeat();
        self.refusals = 0;
        self.choice.welcomed();
        let mut connected = change(State::Connected, Ending::default());
        connected.session = Some(Session {
            user: welcome.user_id.clone(),
            node: welcome.node_id.clone(),
            transport: self.choice.transport(),
        });
        self.change(connected);
        self.take_user_place(welcome.user.as_ref());
        self.join_all();
    }

    pub(super) fn fresh_backoff(&self) -> Backoff {
        Backoff::new(self.options.backoff_min, self.options.backoff_max)
    }

    fn take_user_place(&mut self, place: Option<&Place>) {
        let Some(place) = place else {
            self.user = None;
            return;
        };
        if self.user.is_none() || place.recovered != Some(true) {
            self.user = place.start();
        }
        if let Some(recovered) = place.recovered {
            self.tell_recovery(None, recovered, place.reason.clone());
        }
    }

    pub(super) fn tell_recovery(
        &self,
        room: Option<String>,
        recovered: bool,
        reason: Option<String>,
    ) {
        self.outlet.put(Event::Recovery {
            room,
            recovered,
            reason,
        });
    }

    /// The client gives up the attempt or the connection, or has lost it.
    pub(super) fn lost(&mut self, ending: Ending) {
        let was_up = self.is_up();
        let next = match self.link {
            Link::Dialing(_) | Link::Greeting(_) => self.choice.failed(&ending),
            _ => ending.next(),
        };
        self.effects.push_back(Effect::Drop);
        self.disconnect();
        if let Some(error) = self.final_error(&ending, next, was_up) {
            self.report(error);
            self.shut(change(State::Closed, ending));
            return;
        }
        let wait = if self.choice.is_second() {
            self.backoff.next_short(&mut self.random)
        } else {
            self.backoff.next(&mut self.random)
        };
        let wait = wait.max(ending.retry_after);
        self.link = Link::Waiting(Some(self.after(wait, Timer::Backoff)));
        let mut change = change(State::Disconnected, ending);
        change.retry_in = Some(wait);
        self.change(change);
    }

    /// The error that ends the client for good, if this ending does.
    fn final_error(&mut self, ending: &Ending, next: Next, was_up: bool) -> Option<Error> {
        let callback = matches!(self.options.credentials, Credentials::Callback(_));
        let code = match next {
            Next::Reconnect => return None,
            Next::NewToken => {
                if !was_up {
                    self.refusals += 1;
                }
                if callback && self.refusals < REFUSALS_MAX {
                    self.token = None;
                    return None;
                }
                codes::UNAUTHORIZED
            }
            Next::GiveUp if ending.denied => codes::UNAUTHORIZED,
            Next::GiveUp if ending.unsupported => codes::UNSUPPORTED_PROTOCOL,
            Next::GiveUp => codes::REFUSED,
        };
        let mut error = Error::new(code, ending.reason.clone());
        error.status = ending.status;
        error.close_code = ending.code;
        Some(error)
    }

    /// Ends what belongs to an attempt or a connection.
    fn disconnect(&mut self) {
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Up(mut connection) => {
                let connection = &mut *connection;
                connection.heartbeat.stop(&mut self.timers);
                for alarm in [
                    &mut connection.renewing,
                    &mut connection.stable,
                    &mut connection.settling,
                ] {
                    self.timers.cancel(alarm);
                }
                self.rooms_lost();
                self.calls_lost();
            }
            Link::Waiting(mut alarm) | Link::Dialing(mut alarm) | Link::Greeting(mut alarm) => {
                self.timers.cancel(&mut alarm);
            }
            Link::Down | Link::Token => {}
        }
    }

    /// Closes the client, except for its connection.
    fn shut(&mut self, change: StateChange) {
        self.rooms_lost();
        self.link = Link::Down;
        self.fail_joins();
        self.fail_calls();
        if self.fetching.take().is_some() {
            let fetch = Effect::CancelFetch(super::TokenOf::Client);
            self.effects.push_back(fetch);
        }
        if matches!(self.options.credentials, Credentials::Callback(_)) {
            self.token = None;
        }
        self.timers.clear();
        self.change(change);
    }

    /// Lets messages out: the rooms were joined again.
    pub(super) fn flow(&mut self) {
        if let Link::Up(connection) = &mut self.link {
            self.timers.cancel(&mut connection.settling);
            self.send_waiting();
        }
    }

    fn change(&mut self, change: StateChange) {
        self.state = change.state;
        self.outlet.put(Event::State(change));
    }
}

fn change(state: State, ending: Ending) -> StateChange {
    StateChange {
        state,
        code: ending.code,
        status: ending.status,
        reason: ending.reason,
        retry_in: None,
        session: None,
    }
}

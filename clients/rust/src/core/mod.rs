//! The state machine of a client, without I/O: commands of the application, frames and times come in, effects come out.

mod backoff;
mod calls;
mod choice;
mod connection;
mod ending;
mod frames;
mod heartbeat;
mod joins;
mod link;
mod memberships;
mod renewal;
mod rooms;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{Error, TokenError};
use crate::events::{Event, Outlet, Presence, State, Transport};
use crate::frames::{Ack, OutgoingFrame, Position};
use crate::options::{Credentials, JoinOptions, Options};
use backoff::{Backoff, Random};
use calls::{Calls, Reply};
use choice::Choice;
use link::Link;
use memberships::Rooms;
use timers::{Alarm, Timer, Timers};

pub(crate) use ending::{Ending, retry_after};

/// No timer runs longer; ten years.
const WAIT_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A time, by the clock that never jumps and by the one that goes on while a computer sleeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    pub(crate) day: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            instant: Instant::now(),
            day: SystemTime::now(),
        }
    }

    /// The time after a wait, which servers and options may choose freely.
    fn plus(self, wait: Duration) -> Self {
        let wait = wait.min(WAIT_MAX);
        Self {
            instant: self.instant + wait,
            day: self.day + wait,
        }
    }
}

/// What a client is now.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) state: State,
    pub(crate) rooms: Vec<String>,
    pub(crate) queued: usize,
}

/// A command of the application.
pub(crate) enum Command {
    Connect,
    Close(oneshot::Sender<()>),
    Join {
        room: String,
        options: JoinOptions,
        reply: oneshot::Sender<Result<Option<bool>, Error>>,
    },
    Leave {
        room: String,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Call {
        frame: OutgoingFrame,
        reply: oneshot::Sender<Result<Ack, Error>>,
    },
    Presence {
        room: String,
        reply: oneshot::Sender<Presence>,
    },
    Status(oneshot::Sender<Status>),
}

/// Whose token callback is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenOf {
    Client,
    Room(String),
}

/// An attempt to connect.
#[derive(Debug)]
pub(crate) struct Dial {
    /// The URL of the WebSocket.
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    pub(crate) transport: Transport,
    /// The largest frame that the client accepts.
    pub(crate) receive_bytes_max: usize,
    /// The longest wait for the server's answer to a `POST`.
    #[cfg_attr(
        not(feature = "sse"),
        expect(dead_code, reason = "a WebSocket has no such answers")
    )]
    pub(crate) answer_timeout: Duration,
}

/// What the task does for the state machine, in order.
pub(crate) enum Effect {
    /// Opens a connection.
    Dial(Dial),
    /// Sends a frame.
    Write(String),
    /// Drops the connection or the attempt, without a handshake.
    Drop,
    /// Closes the connection with 1000, or drops the attempt.
    Close,
    /// Calls a token callback.
    Fetch(TokenOf, crate::options::TokenFuture),
    /// Drops the future of a token callback.
    CancelFetch(TokenOf),
    /// Tells the application that `close` is done.
    Done(oneshot::Sender<()>),
}

/// The state of a client. Each method that needs the time takes it first.
pub(crate) struct Core {
    options: Options,
    random: Random,
    outlet: Outlet,
    effects: VecDeque<Effect>,
    timers: Timers,
    now: Moment,
    state: State,
    link: Link,
    backoff: Backoff,
    choice: Choice,
    /// The refused attempts since the last connection.
    refusals: u32,
    /// When `connect` last ended a wait.
    woke: Option<Instant>,
    user: Option<Position>,
    token: Option<String>,
    /// The limit of the token callback, if it runs.
    fetching: Option<Alarm>,
    calls: Calls,
    rooms: Rooms,
}

impl Core {
    pub(crate) fn new(options: Options, random: Random, outlet: Outlet) -> Self {
        let token = match &options.credentials {
            Credentials::Token(token) => Some(token.clone()),
            Credentials::User(_) | Credentials::Callback(_) => None,
        };
        Self {
            backoff: Backoff::new(options.backoff_min, options.backoff_max),
            choice: Choice::new(&options),
            options,
            random,
            outlet,
            effects: VecDeque::new(),
            timers: Timers::default(),
            now: Moment::now(),
            state: State::Disconnected,
            link: Link::Down,
            refusals: 0,
            woke: None,
            user: None,
            token,
            fetching: None,
            calls: Calls::default(),
            rooms: Rooms::default(),
        }
    }

    /// Carries out a command of the application.
    pub(crate) fn command(&mut self, now: Moment, command: Command) {
        self.now = now;
        match command {
            Command::Connect => self.connect(),
            Command::Close(reply) => {
                self.close();
                self.effects.push_back(Effect::Done(reply));
            }
            Command::Join {
                room,
                options,
                reply,
            } => self.join(room, options, reply),
            Command::Leave { room, reply } => self.leave(&room, reply),
            Command::Call { frame, reply } => self.call(frame, Reply::Application(reply)),
            Command::Presence { room, reply } => {
                // The application may no longer wait.
                let _ = reply.send(self.rooms.presence(&room));
            }
            Command::Status(reply) => {
                let _ = reply.send(Status {
                    state: self.state,
                    rooms: self.rooms.joined(),
                    queued: self.calls.queued(),
                });
            }
        }
        self.conclude();
    }

    /// Everything that uses the client is gone.
    pub(crate) fn abandoned(&mut self, now: Moment) {
        self.now = now;
        self.close();
        self.conclude();
    }

    /// Handles every deadline that has passed.
    pub(crate) fn fire(&mut self, now: Moment) {
        self.now = now;
        while let Some(timer) = self.timers.take_due(now.instant) {
            match timer {
                Timer::Attempt => self.attempt_expired(),
                Timer::Backoff => self.begin_attempt(),
                Timer::Stable => self.backoff.reset(),
                Timer::Settle => self.flow(),
                Timer::Heartbeat => self.check_heartbeat(),
                Timer::Token => self.token_expired(TokenOf::Client),
                Timer::RoomToken(room) => self.token_expired(TokenOf::Room(room)),
                Timer::Renewal => self.go_on_renewing(),
                Timer::Answer(id) => self.call_expired(&id),
                Timer::Retry(id) => self.send_again(&id),
                Timer::Join(room) => self.join_again(&room),
            }
            self.conclude();
        }
    }

    /// The first deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first()
    }

    /// Carries out the effects of a client that has no task.
    pub(crate) fn finish_at_rest(&mut self) {
        for effect in self.effects.drain(..) {
            if let Effect::Done(reply) = effect {
                // The application may no longer wait.
                let _ = reply.send(());
            }
        }
    }

    /// Takes the next effect.
    pub(crate) fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub(crate) fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// The number of bytes that the task could not write yet.
    pub(crate) fn set_unwritten(&mut self, bytes: usize) {
        self.calls.unwritten = bytes;
    }

    /// A token callback has ended.
    pub(crate) fn fetched(&mut self, now: Moment, of: TokenOf, result: Result<String, TokenError>) {
        self.now = now;
        let result = match result {
            Ok(token) if token.is_empty() => {
                Err(TokenError::Later("it returned an empty token".to_owned()))
            }
            other => other,
        };
        self.on_fetched(of, result);
        self.conclude();
    }

    fn token_expired(&mut self, of: TokenOf) {
        let waited = match &of {
            TokenOf::Client => self.fetching.is_some(),
            TokenOf::Room(room) => self.rooms.is_fetching(room),
        };
        if waited {
            self.effects.push_back(Effect::CancelFetch(of.clone()));
            let limit = self.options.token_timeout;
            self.on_fetched(
                of,
                Err(TokenError::Later(format!("it took longer than {limit:?}"))),
            );
        }
    }

    fn on_fetched(&mut self, of: TokenOf, result: Result<String, TokenError>) {
        match of {
            TokenOf::Client => self.on_token(result),
            TokenOf::Room(room) => self.on_room_token(&room, result),
        }
    }

    /// Hands the answers of calls to the parts of the client that wait for them.
    fn conclude(&mut self) {
        while let Some((reply, answer)) = self.calls.answers.pop_front() {
            match reply {
                // The application may no longer wait.
                Reply::Application(reply) => drop(reply.send(answer)),
                Reply::Leave(reply) => self.left(reply, answer),
                Reply::Join { room, id } => self.join_answered(&room, &id, answer),
                Reply::Token => self.token_answered(answer),
                Reply::Nobody => {}
            }
        }
    }

    fn after(&mut self, wait: Duration, timer: Timer) -> Alarm {
        self.timers.set(self.now.plus(wait).instant, timer)
    }

    fn report(&mut self, error: Error) {
        if self.state != State::Closed {
            self.outlet.put(Event::Error(error));
        }
    }
}

//! The loop of a session: frames, writing, and timers.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::SystemTime,
};

use signalbox_protocol::{CloseCode, outbound};
use signalbox_router::CloseRequest;
use signalbox_websocket::DecodeError;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Incoming, LiveConfig, Session, SessionEnd, Socket, SocketError,
    actions::Actor,
    closed_by_server,
    dispatch::{self, SessionChange},
    heartbeat::{Beat, was_stopped},
    rate::RateDecision,
    room_tokens, rooms,
    token::TokenStep,
    transport::Transport,
};

/// Frames that are handled before pending output is written, so that a client that sends without pause still gets its
/// messages.
const FRAMES_IN_A_ROW_MAX: usize = 32;

enum Event {
    Frame(Incoming),
    Close(CloseRequest),
    Lost(String),
    Timer,
    /// Others want changes of the connection's rooms.
    RoomChanges,
}

impl<S: Socket> Session<S> {
    pub(super) async fn serve(&mut self) -> SessionEnd {
        self.due = self.next_deadline();
        let mut timer = pin!(sleep_until(self.due));
        let mut in_a_row = 0;
        loop {
            let read_first = in_a_row < FRAMES_IN_A_ROW_MAX;
            let event = poll_fn(|cx| self.poll_event(cx, timer.as_mut(), read_first)).await;
            match event {
                Event::Frame(frame) => {
                    in_a_row = if read_first { in_a_row + 1 } else { 0 };
                    if let Some(end) = self.handle(frame).await {
                        return end;
                    }
                }
                Event::Close(request) => return closed_by_server(request),
                Event::Lost(reason) => {
                    return SessionEnd {
                        code: 1006,
                        reason,
                        owed: None,
                        unexpected: true,
                    };
                }
                Event::Timer => {
                    let was_stopped = self.was_stopped();
                    if let Some(request) = self.look_at_the_clock(was_stopped) {
                        return closed_by_server(request);
                    }
                    self.end_memberships(was_stopped).await;
                    self.due = self.next_deadline();
                    timer.as_mut().reset(self.due);
                }
                Event::RoomChanges => self.change_rooms().await,
            }
        }
    }

    /// Reads before it writes, so that all frames of one read are answered with one write. If a client sends without pause,
    /// writing and timers regularly come first: they must not wait for a pause.
    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        read_first: bool,
    ) -> Poll<Event> {
        if self.take_over_changes() {
            return Poll::Ready(Event::Timer);
        }
        if self.connection.take_probe() && !self.heartbeat.is_asking() {
            self.ping(Instant::now());
        }
        if read_first && let Poll::Ready(event) = self.poll_read(cx, timer.as_mut()) {
            return Poll::Ready(event);
        }
        match self.wire.poll_write(cx) {
            Poll::Ready(Ok(request)) => return Poll::Ready(Event::Close(request)),
            Poll::Ready(Err(error)) => return Poll::Ready(Event::Lost(error.to_string())),
            Poll::Pending => {}
        }
        if self.connection.outbox().took_more() {
            self.heard(Instant::now());
        }
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Timer);
        }
        // After all else, so that nobody who keeps asking for changes can delay it.
        if self.connection.has_room_changes() {
            return Poll::Ready(Event::RoomChanges);
        }
        if read_first {
            Poll::Pending
        } else {
            self.poll_read(cx, timer)
        }
    }

    /// Applies a change of the configuration. Returns whether there was one since the last call, or another token, so that
    /// the deadlines may differ.
    fn take_over_changes(&mut self) -> bool {
        let changes = self.services.live.changes();
        if changes == self.changes_seen {
            return self.token.take_replaced();
        }
        self.changes_seen = changes;
        let bytes = self.services.live.load().limits.frame_bytes_max;
        self.wire.set_frame_bytes_max(bytes);
        true
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Event> {
        let read = self.wire.poll_read(cx);
        let received = self.wire.socket().received();
        if received != self.received {
            self.received = received;
            self.read_at = Instant::now();
            // Frames that come by another way say nothing about this one.
            if S::CLIENT_ANSWERS {
                self.heard(self.read_at);
            }
        }
        let Poll::Ready(read) = read else {
            return self.poll_midway(timer);
        };
        let close = |code, reason| Event::Close(CloseRequest { code, reason });
        Poll::Ready(match read {
            Some(Ok(frame)) => {
                if matches!(frame, Incoming::Text(_) | Incoming::Binary(_)) {
                    self.message_began = None;
                }
                Event::Frame(frame)
            }
            Some(Err(SocketError::Unreadable(error))) => match error {
                DecodeError::TooBig => Event::Close(too_big()),
                DecodeError::NotUtf8 => close(CloseCode::NOT_UTF8, error.to_string()),
                DecodeError::Violation(_) => close(CloseCode::PROTOCOL, error.to_string()),
            },
            Some(Err(error @ SocketError::Broken(_))) => Event::Lost(error.to_string()),
            None => Event::Lost("the connection was lost".to_owned()),
        })
    }

    /// Enforces the limits on time and memory of a message that has not arrived completely.
    fn poll_midway(&mut self, timer: Pin<&mut Sleep>) -> Poll<Event> {
        let socket = self.wire.socket();
        if !socket.is_midway() {
            self.message_began = None;
            self.unfinished.set(0, 0);
            return Poll::Pending;
        }
        let live = self.services.live.load();
        let kept = socket.kept_bytes();
        if !self.unfinished.set(kept, live.limits.unfinished_bytes_max) {
            return Poll::Ready(Event::Close(CloseRequest {
                code: CloseCode::NO_MEMORY,
                reason: "the server has no memory for another unfinished message; try again"
                    .to_owned(),
            }));
        }
        if self.message_began.is_none() {
            self.message_began = Some(self.read_at);
            let deadline = self.read_at + live.limits.message_time_max;
            if deadline < self.due {
                self.due = deadline;
                timer.reset(deadline);
            }
        }
        Poll::Pending
    }

    /// Handles one frame. Returns `Some` if the connection ends.
    async fn handle(&mut self, frame: Incoming) -> Option<SessionEnd> {
        let now = self.read_at;
        let live = self.services.live.load();
        let limits = &live.limits;
        let text = match &frame {
            Incoming::Text(text) => Some(text.as_str()),
            Incoming::Binary(bytes) => std::str::from_utf8(bytes).ok(),
            Incoming::Close { code, reason } => {
                return Some(SessionEnd {
                    code: *code,
                    reason: reason.clone(),
                    owed: None,
                    unexpected: !CloseCode::is_clean(*code),
                });
            }
            Incoming::Pong if self.pongs_owed > 0 => {
                self.pongs_owed -= 1;
                return None;
            }
            Incoming::Ping(_) | Incoming::Pong => {
                let may_go_on = self.allowance.control(now, limits);
                return (!may_go_on).then(|| flooded("control frames"));
            }
            Incoming::Fragment(bytes) => {
                let may_go_on = self.allowance.fragment(*bytes, now, limits);
                return (!may_go_on).then(|| flooded("small fragments"));
            }
        };
        let (services, connection) = (&*self.services, &self.connection);
        // The limit may have been lowered after the socket began to receive the frame.
        if len(&frame) > limits.frame_bytes_max {
            return Some(closed_by_server(too_big()));
        }
        match self.allowance.message(now, limits) {
            RateDecision::Handle => {}
            RateDecision::Refuse { with_id } => {
                dispatch::rate_limited(services, connection, text.filter(|_| with_id));
                return None;
            }
            RateDecision::Flood => return Some(flooded("messages")),
        }
        match text {
            Some(text) => self.dispatch(text, &live).await,
            None => dispatch::not_utf8(services, connection),
        }
        None
    }

    async fn dispatch(&mut self, text: &str, live: &LiveConfig) {
        let change = {
            let (services, connection, client) = (&*self.services, &self.connection, &self.client);
            // Pinned in place: it is large, and would otherwise be moved for every message.
            let handled = pin!(dispatch::frame(
                services,
                connection,
                client,
                text,
                self.read_at,
                live
            ));
            write_until(handled, &mut self.wire).await
        };
        match change {
            None => {}
            Some(SessionChange::Token(token)) => self.replace_token(*token),
            Some(SessionChange::RoomToken) => self.token.look_again(),
        }
    }

    async fn change_rooms(&mut self) {
        let (services, connection, client) = (&*self.services, &self.connection, &self.client);
        // On the heap, because otherwise every idle connection would keep the memory for it.
        let changed = Box::pin(async move {
            let actor = Actor::of(services, connection, client);
            rooms::carry_out_changes(&actor, connection).await;
        });
        write_until(pin!(changed), &mut self.wire).await;
        self.end_memberships(false).await;
    }

    /// Ends the memberships whose token is over, and informs the plugins. `was_stopped`: the process did not run until now.
    async fn end_memberships(&mut self, was_stopped: bool) {
        let (services, connection, client) = (&*self.services, &self.connection, &self.client);
        let ended = room_tokens::end_memberships(services, connection, was_stopped);
        if ended.is_empty() {
            return;
        }
        let reported = Box::pin(async move {
            let actor = Actor::of(services, connection, client);
            for (room, change) in ended {
                actor.report(change, &room).await;
            }
        });
        write_until(pin!(reported), &mut self.wire).await;
    }

    /// Notes a sign of life from the client.
    fn heard(&mut self, now: Instant) {
        let written = self.connection.outbox().written();
        self.heartbeat.heard(now, written);
        self.connection.note_heard();
    }

    fn ping(&mut self, now: Instant) {
        let written = self.connection.outbox().written();
        if S::CLIENT_ANSWERS {
            self.connection.note_ping(now, self.heartbeat.last_heard());
            self.pongs_owed = self.pongs_owed.saturating_add(1);
        } else if !self.wire.is_blocked() {
            self.heartbeat.heard(now, written);
        }
        self.heartbeat.pinged(now, written);
        self.wire.ping();
    }

    fn next_deadline(&self) -> Instant {
        let live = self.services.live.load();
        let beat = self.heartbeat.deadline(&live.server);
        let token = self
            .token
            .next_due(SystemTime::now(), live.token_times.grace)
            .map(|left| Instant::now() + left);
        let room = room_tokens::next_end(&self.connection, live.token_times.grace)
            .map(|left| Instant::now() + left);
        let message = self.message_began;
        let message = message.map(|began| began + live.limits.message_time_max);
        [token, room, message]
            .into_iter()
            .flatten()
            .fold(beat, Instant::min)
    }

    /// Whether the process did not run when the deadline came.
    fn was_stopped(&self) -> bool {
        let live = self.services.live.load();
        was_stopped(Instant::now(), self.due, &live.server)
    }

    /// Pings a silent client, and announces the end of its token. Returns `Some` if the connection must end.
    fn look_at_the_clock(&mut self, was_stopped: bool) -> Option<CloseRequest> {
        let now = Instant::now();
        let over = |code, reason: &str| {
            Some(CloseRequest {
                code,
                reason: reason.to_owned(),
            })
        };
        let live = self.services.live.load();
        let grace = live.token_times.grace;
        match self.token.next_step(SystemTime::now(), grace, was_stopped) {
            TokenStep::Rest => {}
            TokenStep::Announce(left) => {
                let table = self.services.router.table();
                table.push(&self.connection, outbound::token_expiring(left));
            }
            TokenStep::Close => return over(CloseCode::TOKEN_EXPIRED, "the token has expired"),
        }
        match self.heartbeat.next_beat(now, self.due, &live.server) {
            Beat::Rest => {}
            Beat::Idle if S::CLIENT_ANSWERS => {
                return over(CloseCode::IDLE, "nothing was heard from the client");
            }
            Beat::Idle if self.wire.is_blocked() => {
                return over(CloseCode::IDLE, "the client takes nothing");
            }
            Beat::Ping | Beat::Idle => self.ping(now),
        }
        let began = self.message_began?;
        if was_stopped {
            self.message_began = Some(now);
        } else if now >= began + live.limits.message_time_max {
            let reason = "a message took longer than limits.message_time_max to arrive";
            return over(CloseCode::SLOW_MESSAGE, reason);
        }
        None
    }
}

/// Waits for `done`, and writes meanwhile. An error or a close request comes up again at the next event.
pub(super) fn write_until<S: Socket, T>(
    mut done: Pin<&mut impl Future<Output = T>>,
    wire: &mut Transport<S>,
) -> impl Future<Output = T> {
    poll_fn(move |cx| {
        if let Poll::Ready(result) = done.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let _ = wire.poll_write(cx);
        Poll::Pending
    })
}

fn len(message: &Incoming) -> usize {
    match message {
        Incoming::Text(text) => text.len(),
        Incoming::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

fn too_big() -> CloseRequest {
    CloseRequest {
        code: CloseCode::TOO_BIG,
        reason: "the frame is larger than limits.frame_bytes_max".to_owned(),
    }
}

fn flooded(with: &str) -> SessionEnd {
    closed_by_server(CloseRequest {
        code: CloseCode::FLOOD,
        reason: format!("far too many {with}; send more slowly"),
    })
}

//! Tests the state machine with a scripted server and a clock of its own.

mod calls;
mod rooms;
mod tokens;
#[cfg(feature = "sse")]
mod transports;

use serde_json::{Value, json};

use super::ending::Next;
use super::*;
use crate::events::{Events, Message, StateChange, queue};
use crate::outgoing::Outgoing;

/// A client whose random numbers are all 1, so that each wait is the longest.
struct Bench {
    core: Core,
    events: Events,
    now: Moment,
}

impl Bench {
    fn new(options: Options) -> Self {
        let (outlet, events) = queue(options.events_max);
        Self {
            core: Core::new(options, Box::new(|| 1.0), outlet),
            events,
            now: Moment::now(),
        }
    }

    fn user() -> Self {
        Self::new(Options::user("ws://server/ws", "ann"))
    }

    fn connected() -> Self {
        let mut bench = Self::user();
        bench.command(Command::Connect);
        bench.welcome(json!({}));
        bench.effects();
        bench
    }

    fn command(&mut self, command: Command) {
        self.core.command(self.now, command);
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(deadline) = self.core.deadline().filter(|deadline| *deadline <= end) {
            self.jump(deadline.saturating_duration_since(self.now.instant));
        }
        self.jump(end.saturating_duration_since(self.now.instant));
    }

    /// Lets time pass at once, as if the process had been paused.
    fn jump(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.day += time;
        self.core.fire(self.now);
    }

    fn receive(&mut self, event_type: &str, payload: Value) {
        self.receive_frame(&json!({"type": event_type, "payload": payload}));
    }

    fn receive_frame(&mut self, frame: &Value) {
        self.core.received(self.now, &frame.to_string());
    }

    fn welcome(&mut self, payload: Value) {
        self.core.opened(self.now);
        self.receive("welcome", payload);
    }

    fn lose(&mut self) {
        self.core.ended(self.now, Ending::because("lost"));
    }

    /// Loses the connection and makes another.
    fn reconnect(&mut self) {
        self.lose();
        self.pass(Duration::from_millis(500));
        self.effects();
        self.welcome(json!({}));
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.core.effect()).collect()
    }

    /// The frames that the client has sent since the last call.
    fn sent(&mut self) -> Vec<Value> {
        let text = |effect| match effect {
            Effect::Write(text) => serde_json::from_str(&text).ok(),
            _ => None,
        };
        self.effects().into_iter().filter_map(text).collect()
    }

    fn urls(&mut self) -> Vec<String> {
        let url = |effect| match effect {
            Effect::Dial(dial) => Some(dial.url),
            _ => None,
        };
        self.effects().into_iter().filter_map(url).collect()
    }

    fn ack(&mut self, frame: &Value, mut payload: Value) {
        payload["id"] = frame["id"].clone();
        self.receive("ack", payload);
    }

    fn refuse(&mut self, frame: &Value, code: &str, retryable: bool) {
        let payload =
            json!({"id": frame["id"], "code": code, "message": "no", "retryable": retryable});
        self.receive("error", payload);
    }

    fn send(&mut self, message: Outgoing) -> oneshot::Receiver<Result<Ack, Error>> {
        let (reply, answer) = oneshot::channel();
        let frame = message.into();
        self.command(Command::Call { frame, reply });
        answer
    }

    fn events(&mut self) -> Vec<Event> {
        use futures_util::{FutureExt, StreamExt};
        std::iter::from_fn(|| self.events.next().now_or_never().flatten()).collect()
    }

    fn states(&mut self) -> Vec<StateChange> {
        let state = |event| match event {
            Event::State(change) => Some(change),
            _ => None,
        };
        self.events().into_iter().filter_map(state).collect()
    }

    fn messages(&mut self) -> Vec<Message> {
        let message = |event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        };
        self.events().into_iter().filter_map(message).collect()
    }
}

fn code<T: std::fmt::Debug>(mut answer: oneshot::Receiver<Result<T, Error>>) -> String {
    answer.try_recv().unwrap().unwrap_err().code
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn waits_are_random_and_double_up_to_a_bound() {
    let mut backoff = Backoff::new(Duration::from_millis(500), seconds(20));
    let mut most: Random = Box::new(|| 1.0);
    let waits: Vec<_> = (0..8)
        .map(|_| backoff.next(&mut most).as_millis())
        .collect();
    assert_eq!(
        waits,
        [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]
    );
    assert_eq!(
        backoff.next(&mut (Box::new(|| 0.0) as Random)),
        Duration::ZERO
    );
    let mut late = Backoff::new(seconds(1), seconds(20)).at(u32::MAX);
    assert_eq!(late.next(&mut most), seconds(20));
    backoff.reset();
    let mut half: Random = Box::new(|| 0.5);
    assert_eq!(backoff.next(&mut half), Duration::from_millis(250));
}

#[test]
fn close_codes_and_statuses_are_handled_as_in_the_table() {
    let after = |code, status| {
        let ending = Ending {
            code,
            status,
            ..Ending::default()
        };
        ending.next()
    };
    for code in [4500, 4504] {
        assert_eq!(after(Some(code), None), Next::NewToken, "{code}");
    }
    for code in [
        4501, 4502, 4503, 4505, 4506, 4999, 1002, 1003, 1007, 1008, 1009, 1010,
    ] {
        assert_eq!(after(Some(code), None), Next::GiveUp, "{code}");
    }
    for code in [
        1000, 1001, 1005, 1006, 1011, 1012, 1013, 3000, 4000, 4001, 4499,
    ] {
        assert_eq!(after(Some(code), None), Next::Reconnect, "{code}");
    }
    for (status, next) in [
        (401, Next::NewToken),
        (400, Next::GiveUp),
        (403, Next::GiveUp),
        (404, Next::GiveUp),
        (405, Next::GiveUp),
        (410, Next::GiveUp),
        (426, Next::GiveUp),
        (301, Next::Reconnect),
        (408, Next::Reconnect),
        (429, Next::Reconnect),
        (503, Next::Reconnect),
    ] {
        assert_eq!(after(None, Some(status)), next, "{status}");
    }
    assert_eq!(after(None, None), Next::Reconnect);
}

#[test]
fn retry_after_is_at_most_a_minute_and_nothing_if_it_is_no_number() {
    assert_eq!(retry_after(" 7 "), seconds(7));
    assert_eq!(retry_after("3600"), seconds(60));
    assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Duration::ZERO);
}

#[test]
fn the_backoff_resets_only_after_a_connection_that_lasted() {
    let mut bench = Bench::connected();
    bench.lose();
    bench.pass(Duration::from_millis(500));
    bench.welcome(json!({}));
    bench.events();
    bench.lose();
    assert_eq!(bench.states()[0].retry_in, Some(seconds(1)));
    bench.pass(seconds(1));
    bench.welcome(json!({}));
    bench.pass(seconds(5));
    bench.events();
    bench.lose();
    assert_eq!(bench.states()[0].retry_in, Some(Duration::from_millis(500)));
}

#[test]
fn a_wait_ends_when_the_application_connects_but_not_again_and_again() {
    let mut bench = Bench::user();
    bench.command(Command::Connect);
    assert_eq!(bench.urls(), ["ws://server/ws?userId=ann"]);
    bench.lose();
    bench.command(Command::Connect);
    assert_eq!(bench.urls().len(), 1);
    bench.lose();
    bench.command(Command::Connect);
    assert_eq!(bench.urls().len(), 0);
    bench.pass(seconds(1));
    assert_eq!(bench.urls().len(), 1);
}

#[test]
fn an_attempt_without_welcome_ends_in_its_time() {
    let mut bench = Bench::user();
    bench.command(Command::Connect);
    bench.core.opened(bench.now);
    bench.pass(seconds(10));
    assert!(
        bench
            .effects()
            .iter()
            .any(|effect| matches!(effect, Effect::Drop))
    );
    let states: Vec<_> = bench.states().iter().map(|change| change.state).collect();
    assert_eq!(states, [State::Connecting, State::Disconnected]);
}

#[test]
fn silence_leads_to_a_heartbeat_and_no_answer_to_the_loss_of_the_connection() {
    let mut bench = Bench::user();
    bench.command(Command::Connect);
    bench.welcome(json!({"heartbeatIntervalMs": 20_000}));
    bench.pass(seconds(12));
    bench.core.heard(bench.now);
    bench.pass(seconds(19));
    assert_eq!(bench.sent().len(), 0);
    bench.pass(seconds(1));
    let sent = bench.sent();
    assert_eq!(sent[0]["type"], "heartbeat");
    bench.ack(&sent[0], json!({}));
    bench.pass(seconds(20));
    assert_eq!(bench.sent().len(), 1);
    bench.events();
    bench.pass(seconds(10));
    assert_eq!(bench.states()[0].state, State::Disconnected);
}

#[test]
fn after_a_pause_of_the_process_the_client_asks_first_and_waits_five_seconds() {
    let mut bench = Bench::user();
    bench.command(Command::Connect);
    bench.welcome(json!({"heartbeatIntervalMs": 20_000}));
    bench.sent();
    bench.events();
    bench.jump(seconds(3_600));
    assert_eq!(bench.sent()[0]["type"], "heartbeat");
    bench.pass(Duration::from_millis(4_999));
    assert!(bench.states().is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.states()[0].state, State::Disconnected);
}

#[test]
fn silence_means_nothing_while_the_application_takes_no_events() {
    let mut options = Options::user("ws://server/ws", "ann");
    options.events_max = 3;
    let mut bench = Bench::new(options);
    bench.command(Command::Connect);
    bench.welcome(json!({"heartbeatIntervalMs": 20_000}));
    bench.receive("note", json!(1));
    bench.sent();
    bench.pass(seconds(300));
    assert_eq!(bench.sent().len(), 0);
    assert_eq!(bench.events().len(), 3);
}

#[test]
fn unread_events_are_bounded_and_the_newest_state_is_kept() {
    let mut options = Options::user("ws://server/ws", "ann");
    options.events_max = 4;
    let mut bench = Bench::new(options);
    bench.command(Command::Connect);
    for _ in 0..100 {
        bench.lose();
        bench.pass(seconds(20));
    }
    bench.core.abandoned(bench.now);
    let states = bench.states();
    assert_eq!(states.len(), 1, "close forgets the others");
    assert_eq!(states[0].state, State::Closed);

    let mut bench = Bench::user();
    bench.command(Command::Connect);
    for _ in 0..2_000 {
        bench.lose();
        bench.pass(seconds(20));
    }
    let states = bench.states();
    assert_eq!(states.len(), 2_000);
    assert_eq!(states[1_999].state, bench.core.state);
}

#[test]
fn a_closed_client_has_no_timer_and_answers_all_calls() {
    let mut bench = Bench::connected();
    let waiting = bench.send(Outgoing::new("t"));
    let resting = bench.send(Outgoing::new("t").once());
    let frame = bench.sent().pop().unwrap();
    bench.refuse(&frame, "busy", true);
    let (reply, mut closed) = oneshot::channel();
    bench.command(Command::Close(reply));
    assert_eq!(code(waiting), "closed");
    assert_eq!(code(resting), "closed");
    assert_eq!(bench.core.deadline(), None);
    bench.core.finish_at_rest();
    assert!(closed.try_recv().is_ok());
    let late = bench.send(Outgoing::new("t"));
    assert_eq!(code(late), "closed");
}

#[test]
fn the_messages_of_the_user_are_asked_for_after_a_gap_and_repetitions_are_dropped() {
    let mut bench = Bench::user();
    bench.command(Command::Connect);
    bench.effects();
    bench.welcome(json!({"user": {"epoch": "e/1", "offset": 3}}));
    for offset in [4, 4, 3, 6] {
        bench.receive_frame(&json!({"type": "t", "payload": null, "offset": offset}));
    }
    let offsets: Vec<_> = bench
        .messages()
        .iter()
        .map(|message| message.offset)
        .collect();
    assert_eq!(offsets, [Some(4)]);
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.urls(), ["ws://server/ws?userId=ann&since=e%2F1%3A4"]);
    bench.welcome(json!({"user": {"epoch": "f", "offset": 9, "count": 2, "recovered": false, "reason": "epoch"}}));
    assert!(matches!(
        bench.events().last(),
        Some(Event::Recovery {
            room: None,
            recovered: false,
            ..
        })
    ));
    bench.receive_frame(&json!({"type": "t", "offset": 8}));
    assert_eq!(bench.messages().len(), 1);
}

#[test]
fn an_invalid_frame_is_reported_and_changes_nothing() {
    let mut bench = Bench::connected();
    bench.events();
    for garbage in [
        "",
        "{",
        "[]",
        "7",
        r#"{"type":7}"#,
        r#"{"type":"ack","payload":7}"#,
    ] {
        bench.core.received(bench.now, garbage);
    }
    let events = bench.events();
    assert_eq!(events.len(), 6);
    for event in events {
        assert!(matches!(event, Event::Error(error) if error.code == "invalid_frame"));
    }
    bench.receive("unknown.type", json!({"deep": "[".repeat(10)}));
    assert_eq!(bench.messages().len(), 1);
}

#[test]
fn no_number_of_the_server_or_of_the_options_is_too_large() {
    let mut options = Options::user("ws://server/ws", "ann");
    for wait in [
        &mut options.connect_timeout,
        &mut options.backoff_min,
        &mut options.backoff_max,
        &mut options.stable_after,
        &mut options.answer_timeout,
        &mut options.heartbeat_timeout,
    ] {
        *wait = Duration::MAX;
    }
    options.queue_bytes_max = usize::MAX;
    let mut bench = Bench::new(options);
    bench.command(Command::Connect);
    bench.welcome(json!({
        "heartbeatIntervalMs": u64::MAX,
        "limits": {"frameBytesMax": u64::MAX},
        "user": {"epoch": "e", "offset": u64::MAX, "count": u64::MAX},
    }));
    drop(bench.send(Outgoing::new("t")));
    for offset in [1, u64::MAX] {
        bench.receive_frame(&json!({"type": "t", "offset": offset}));
    }
    bench.jump(seconds(u64::from(u32::MAX)));
    bench.command(Command::Close(oneshot::channel().0));
    assert_eq!(bench.core.deadline(), None);
}

//! Tests the choice of the transport (section 12 of SPEC.md).

use super::*;
use crate::error::codes;
use crate::events::Transport::{self, Sse, WebSocket};

fn refused(status: u16, error_code: Option<&str>) -> Ending {
    Ending {
        status: Some(status),
        error_code: error_code.map(str::to_owned),
        ..Ending::default()
    }
}

fn closed(code: u16) -> Ending {
    Ending {
        code: Some(code),
        ..Ending::default()
    }
}

impl Bench {
    /// The transport of the attempt that has just begun.
    fn dialed(&mut self) -> Option<Transport> {
        let dial = |effect| match effect {
            Effect::Dial(dial) => Some(dial.transport),
            _ => None,
        };
        self.effects().into_iter().filter_map(dial).next_back()
    }

    /// Ends the attempt or connection. Returns the wait, and the transport of the next attempt.
    fn next_after(&mut self, ending: Ending) -> (Duration, Transport) {
        self.core.ended(self.now, ending);
        let wait = self.states().last().and_then(|change| change.retry_in);
        let wait = wait.expect("the client reconnects");
        self.pass(wait);
        (wait, self.dialed().expect("an attempt"))
    }

    fn transports(&mut self, endings: Vec<Ending>) -> Vec<Transport> {
        let next = |ending| self.next_after(ending).1;
        endings.into_iter().map(next).collect()
    }

    fn connecting() -> Self {
        let mut bench = Self::user();
        bench.command(Command::Connect);
        assert_eq!(bench.dialed(), Some(WebSocket));
        bench
    }
}

#[test]
fn attempts_alternate_in_pairs_with_the_long_waits_before_web_sockets() {
    let mut bench = Bench::connecting();
    let mut next = || bench.next_after(refused(502, None));
    let millis = Duration::from_millis;
    assert_eq!(next(), (millis(500), Sse));
    assert_eq!(next(), (millis(1_000), WebSocket));
    assert_eq!(next(), (millis(500), Sse));
    assert_eq!(next(), (millis(4_000), WebSocket));
    assert_eq!(next(), (millis(500), Sse));
    assert_eq!(next(), (millis(16_000), WebSocket));
}

#[test]
fn an_answer_of_the_server_is_no_reason_for_another_transport() {
    let mut bench = Bench::connecting();
    let endings = vec![
        refused(503, Some("draining")),
        refused(429, Some("too_many_upgrades")),
        closed(4008),
        refused(426, Some("not_an_upgrade")),
        refused(503, Some("draining")),
        closed(4009),
        refused(503, None),
    ];
    let expected = [WebSocket, WebSocket, WebSocket, Sse, Sse, Sse, WebSocket];
    assert_eq!(bench.transports(endings), expected);
}

#[test]
fn a_client_that_had_a_web_socket_makes_three_attempts_before_it_uses_sse() {
    let mut bench = Bench::connecting();
    bench.welcome(json!({}));
    let lost = || Ending::because("lost");
    let transports = bench.transports(vec![lost(), lost(), lost(), lost(), lost()]);
    assert_eq!(
        transports,
        [WebSocket, WebSocket, WebSocket, Sse, WebSocket]
    );
}

#[test]
fn after_sse_the_first_attempt_uses_sse_until_ten_minutes_have_passed() {
    let mut bench = Bench::connecting();
    assert_eq!(bench.next_after(refused(502, None)).1, Sse);
    bench.welcome(json!({}));
    assert_eq!(bench.next_after(closed(4000)).1, Sse);
    bench.welcome(json!({}));
    bench.jump(seconds(600));
    bench.receive("t", json!(1));
    assert_eq!(bench.next_after(closed(4000)).1, WebSocket);
    assert_eq!(bench.next_after(refused(502, None)).1, Sse);
}

#[test]
fn a_final_status_closes_the_client_if_both_transports_end_with_one_or_the_server_has_sent_it() {
    let mut bench = Bench::connecting();
    bench.next_after(refused(403, None));
    bench.core.ended(bench.now, refused(404, Some("not_found")));
    assert!(bench.core.is_closed());

    let mut bench = Bench::connecting();
    let absent = || refused(404, Some("sse_disabled"));
    let endings = vec![refused(502, None), absent(), refused(502, None), absent()];
    assert_eq!(bench.transports(endings), [Sse, WebSocket, Sse, WebSocket]);
    bench.next_after(refused(502, None));
    bench.core.ended(bench.now, refused(403, Some("blocked")));
    assert!(bench.core.is_closed());
}

#[test]
fn without_the_fallback_there_are_web_sockets_alone_and_final_statuses_are_final() {
    let mut options = Options::user("ws://server/ws", "ann");
    options.fallback = false;
    let mut bench = Bench::new(options);
    bench.command(Command::Connect);
    let endings = vec![refused(502, None), Ending::because("lost")];
    assert_eq!(bench.transports(endings), [WebSocket, WebSocket]);
    bench.core.ended(bench.now, refused(403, None));
    assert!(bench.core.is_closed());
}

#[test]
fn a_stream_without_events_is_an_error_that_names_a_proxy() {
    let mut bench = Bench::connecting();
    bench.next_after(refused(502, None));
    bench.core.opened(bench.now);
    bench.pass(seconds(10));
    let errors: Vec<_> = bench
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Error(error) => Some(error),
            _ => None,
        })
        .collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].code, codes::BUFFERED);
    assert!(errors[0].retryable && errors[0].message.contains("proxy"));
}

#[test]
fn a_frame_that_was_not_accepted_fails_and_says_nothing_about_the_connection() {
    let mut bench = Bench::connected();
    let mut answer = bench.send(Outgoing::new("t"));
    let frame = bench.sent().remove(0);
    bench.jump(seconds(9));
    let error = Error::new(codes::CONNECTION_LOST, "no answer");
    let id = frame["id"].as_str().expect("an ID");
    bench.core.not_accepted(bench.now, id, error.clone());
    assert_eq!(answer.try_recv().expect("an answer").unwrap_err(), error);
    bench.pass(seconds(16));
    assert_eq!(bench.sent()[0]["type"], "heartbeat");
}

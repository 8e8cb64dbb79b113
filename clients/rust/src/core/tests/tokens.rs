//! Tests tokens and their callbacks.

use super::*;

fn later() -> TokenError {
    TokenError::Later("no".to_owned())
}

fn with_callback() -> Bench {
    Bench::new(Options::token_callback("ws://server/ws", async || {
        Ok(String::new())
    }))
}

impl Bench {
    /// The number of token callbacks that begin, and of those that are dropped.
    fn fetches(&mut self) -> (usize, usize) {
        let effects = self.effects();
        let count = |is: fn(&Effect) -> bool| effects.iter().filter(|effect| is(effect)).count();
        (
            count(|effect| matches!(effect, Effect::Fetch(..))),
            count(|effect| matches!(effect, Effect::CancelFetch(_))),
        )
    }

    fn token(&mut self, result: Result<&str, TokenError>) {
        let result = result.map(str::to_owned);
        self.core.fetched(self.now, TokenOf::Client, result);
    }

    fn error_codes(&mut self) -> Vec<String> {
        let code = |event| match event {
            Event::Error(error) => Some(error.code),
            _ => None,
        };
        self.events().into_iter().filter_map(code).collect()
    }

    fn connected_with(token: &str) -> Self {
        let mut bench = with_callback();
        bench.command(Command::Connect);
        bench.token(Ok(token));
        bench.welcome(json!({}));
        bench.effects();
        bench.events();
        bench
    }
}

#[test]
fn a_token_callback_has_half_a_minute_and_never_runs_twice() {
    let mut bench = with_callback();
    bench.command(Command::Connect);
    assert_eq!(bench.fetches(), (1, 0));
    bench.pass(Duration::from_millis(29_999));
    assert_eq!(bench.fetches(), (0, 0));
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.fetches(), (0, 1));
    assert_eq!(bench.error_codes(), ["token_failed"]);
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.fetches(), (1, 0));
    bench.token(Ok(""));
    assert_eq!(bench.error_codes(), ["token_failed"]);
}

#[test]
fn a_token_is_kept_until_the_server_refuses_it_three_times_in_a_row() {
    let mut bench = Bench::connected_with("first");
    bench.lose();
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.fetches(), (0, 0));
    for n in 1..=3 {
        let ending = Ending {
            status: Some(401),
            ..Ending::default()
        };
        bench.core.ended(bench.now, ending);
        if n < 3 {
            bench.pass(seconds(20));
            assert_eq!(bench.fetches(), (1, 0));
            bench.token(Ok("next"));
        }
    }
    assert_eq!(bench.error_codes(), ["unauthorized"]);
    assert!(bench.core.is_closed());
    assert_eq!(bench.core.deadline(), None);
}

#[test]
fn a_permanent_failure_of_a_callback_closes_the_client_even_while_it_is_connected() {
    let mut bench = Bench::connected_with("first");
    bench.receive("token_expiring", json!({"expiresInMs": 30_000}));
    bench.pass(Duration::ZERO);
    assert_eq!(bench.fetches(), (1, 0));
    bench.token(Err(TokenError::Final("gone".to_owned())));
    assert_eq!(bench.error_codes(), ["unauthorized"]);
    assert!(bench.core.is_closed());
}

#[test]
fn a_renewal_that_fails_is_tried_again_with_backoff() {
    let mut bench = Bench::connected_with("first");
    bench.receive("token_expiring", json!({"expiresInMs": 30_000}));
    bench.pass(Duration::ZERO);
    bench.fetches();
    bench.token(Err(later()));
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.fetches(), (1, 0));
    bench.token(Ok("second"));
    let frame = bench.sent().pop().unwrap();
    assert_eq!(
        (&frame["type"], &frame["payload"]),
        (&json!("token"), &json!("second"))
    );
    bench.refuse(&frame, "unavailable", true);
    bench.pass(Duration::from_millis(1_000));
    let frame = bench.sent().pop().unwrap();
    assert_eq!(frame["payload"], "second");
    bench.ack(&frame, json!({}));
    assert_eq!(bench.error_codes(), ["token_failed"]);
}

#[test]
fn an_announcement_during_a_renewal_is_not_lost_and_leads_to_no_fast_loop() {
    let mut bench = Bench::connected_with("first");
    bench.receive("token_expiring", json!({"expiresInMs": 30_000}));
    bench.pass(Duration::ZERO);
    bench.fetches();
    bench.token(Ok("short"));
    let frame = bench.sent().pop().unwrap();
    bench.receive("token_expiring", json!({"expiresInMs": 10_000}));
    bench.ack(&frame, json!({}));
    bench.pass(Duration::from_millis(4_999));
    assert_eq!(bench.fetches(), (0, 0));
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.fetches(), (1, 0));
}

#[test]
fn a_callback_that_runs_when_the_connection_is_lost_serves_the_next_attempt() {
    let mut bench = Bench::connected_with("first");
    bench.receive("token_expiring", json!({"expiresInMs": 30_000}));
    bench.pass(Duration::ZERO);
    assert_eq!(bench.fetches(), (1, 0));
    bench.lose();
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.fetches(), (0, 0));
    bench.token(Ok("second"));
    assert_eq!(bench.urls().len(), 1);
}

#[test]
fn close_ends_a_callback_and_a_new_start_calls_it_again() {
    let mut bench = with_callback();
    bench.command(Command::Connect);
    bench.fetches();
    bench.command(Command::Close(oneshot::channel().0));
    assert_eq!(bench.fetches(), (0, 1));
    bench.command(Command::Connect);
    assert_eq!(bench.fetches(), (1, 0));
}

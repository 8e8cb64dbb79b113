//! Tests calls and the queue.

use super::*;

#[test]
fn the_ids_of_calls_are_unique_among_clients() {
    let mut ids = std::collections::HashSet::new();
    for _ in 0..10 {
        let mut bench = Bench::connected();
        for _ in 0..50 {
            drop(bench.send(Outgoing::new("t")));
        }
        ids.extend(bench.sent().iter().map(|frame| frame["id"].to_string()));
    }
    assert_eq!(ids.len(), 500);
}

#[test]
fn a_message_that_was_not_answered_fails_but_one_with_once_is_sent_again_first() {
    let mut bench = Bench::connected();
    let lost = bench.send(Outgoing::new("lost"));
    let mut kept = bench.send(Outgoing::new("kept").once());
    let id = bench.sent()[1]["id"].clone();
    bench.lose();
    assert_eq!(code(lost), "connection_lost");
    let _queued = bench.send(Outgoing::new("queued"));
    bench.pass(Duration::from_millis(500));
    bench.welcome(json!({}));
    let sent = bench.sent();
    assert_eq!((&sent[0]["type"], &sent[0]["id"]), (&json!("kept"), &id));
    assert_eq!(sent[1]["type"], "queued");
    bench.ack(&sent[0], json!({"status": "delivered", "duplicate": true}));
    assert!(kept.try_recv().unwrap().unwrap().duplicate);
}

#[test]
fn a_call_with_once_is_tried_three_times_more() {
    let mut bench = Bench::connected();
    let answer = bench.send(Outgoing::new("t").once());
    for wait in [500, 1_000, 2_000] {
        let frame = bench.sent().pop().unwrap();
        bench.refuse(&frame, "busy", true);
        bench.pass(Duration::from_millis(wait - 1));
        assert!(bench.sent().is_empty());
        bench.pass(Duration::from_millis(1));
    }
    let frame = bench.sent().pop().unwrap();
    bench.refuse(&frame, "busy", true);
    assert_eq!(code(answer), "busy");
}

#[test]
fn a_call_whose_first_try_is_in_progress_is_repeated_for_fifteen_seconds() {
    let mut bench = Bench::connected();
    let answer = bench.send(Outgoing::new("t").once());
    for wait in [500, 1_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 1_500] {
        let frame = bench.sent().pop().unwrap();
        bench.refuse(&frame, "in_progress", true);
        bench.pass(Duration::from_millis(wait - 1));
        assert!(bench.sent().is_empty());
        bench.pass(Duration::from_millis(1));
    }
    let frame = bench.sent().pop().unwrap();
    bench.refuse(&frame, "in_progress", true);
    assert_eq!(code(answer), "in_progress");
}

#[test]
fn a_repetition_after_in_progress_is_none_of_the_three_retries() {
    let mut bench = Bench::connected();
    let mut answer = bench.send(Outgoing::new("t").once());
    let refusals = [
        ("in_progress", [500, 1_000, 2_000]),
        ("busy", [500, 1_000, 2_000]),
        ("in_progress", [2_000, 2_000, 2_000]),
    ];
    for (code, waits) in refusals {
        for wait in waits {
            let frame = bench.sent().pop().unwrap();
            bench.refuse(&frame, code, true);
            bench.pass(Duration::from_millis(wait));
        }
    }
    let frame = bench.sent().pop().unwrap();
    bench.ack(&frame, json!({"status": "delivered"}));
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn the_queue_is_bounded_and_a_message_that_was_given_up_leaves_it() {
    let mut options = Options::user("ws://server/ws", "ann");
    options.queue_max = 2;
    let mut bench = Bench::new(options);
    let _first = bench.send(Outgoing::new("first"));
    let given_up = bench.send(Outgoing::new("given up"));
    let too_many = bench.send(Outgoing::new("too many"));
    assert_eq!(code(too_many), "queue_full");
    drop(given_up);
    let _second = bench.send(Outgoing::new("second"));
    bench.command(Command::Connect);
    bench.welcome(json!({}));
    let sent = bench.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(
        (&sent[0]["type"], &sent[1]["type"]),
        (&json!("first"), &json!("second"))
    );
}

#[test]
fn a_socket_that_takes_nothing_does_not_collect_messages_without_bound() {
    let mut bench = Bench::connected();
    bench.core.set_unwritten(16 * (256 << 10));
    let refused = bench.send(Outgoing::new("t"));
    assert_eq!(code(refused), "queue_full");
}

#[test]
fn a_frame_over_the_limit_of_the_server_is_not_sent() {
    let mut bench = Bench::user();
    let queued = bench.send(Outgoing::new("t").payload("x".repeat(200)));
    bench.command(Command::Connect);
    bench.welcome(json!({"limits": {"frameBytesMax": 100}}));
    assert_eq!(code(queued), "too_large");
    let sent = bench.send(Outgoing::new("t").payload("x".repeat(200)));
    assert_eq!(code(sent), "too_large");
    assert!(bench.sent().is_empty());
}

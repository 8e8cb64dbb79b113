//! Nanoseconds to read a client's frame, and to check a message that another node or a worker published.
//!
//! `cargo bench -p signalbox --bench frames`. The best of many short rounds counts, so that other work on the machine changes little.

use std::{
    borrow::Cow,
    hint::black_box,
    time::{Instant, SystemTime},
};

use signalbox::protocol::{Envelope, json, outbound::Delivery, published};

const ROUNDS: u32 = 2_000;
const CALLS_IN_A_ROUND: u32 = 50;

fn main() {
    let of_text = |text: &str| format!(r#"{{"text":"{text}"}}"#);
    let payloads = [
        ("128 bytes", of_text(&"x".repeat(117))),
        (
            "128 bytes with escapes",
            of_text(&"\\u00e4 \\n ok.".repeat(9)),
        ),
        ("2 KiB of numbers", format!("[{}0]", "12.5,".repeat(400))),
        (
            "2 KiB of objects",
            format!("[{}0]", r#"{"a":"bc","n":1},"#.repeat(120)),
        ),
        ("60 KiB of text", of_text(&"x".repeat(60_000))),
    ];
    for (name, payload) in &payloads {
        let frame = format!(
            r#"{{"type":"chat_message","payload":{payload},"receiverId":"user-17","id":"1234"}}"#
        );
        let delivery = Delivery {
            event_type: "chat_message",
            payload,
            receiver: "user-17",
            sender: "user-16",
            timestamp: SystemTime::UNIX_EPOCH,
            room: None,
            message_id: Some("0f6a31c2d4e5-2a"),
        };
        let canonical = delivery.encode();
        let by_a_worker =
            format!(r#"{{"receiverId":"user-17","type":"chat_message","payload":{payload}}}"#);
        let normalised = |text: &str| {
            let published = published::normalise(black_box(text), SystemTime::UNIX_EPOCH);
            matches!(published.expect("a message").frame, Cow::Borrowed(_))
        };
        assert!(
            normalised(canonical.as_str()),
            "what nodes publish is not copied"
        );
        println!("{name}");
        measure("a client's frame", || {
            Envelope::parse(black_box(&frame)).is_ok()
        });
        measure("its rules for JSON alone", || {
            json::check_rules(black_box(&frame)).is_ok()
        });
        measure("published by a node", || normalised(canonical.as_str()));
        measure("published by a worker", || normalised(&by_a_worker));
    }
}

fn measure(what: &str, mut call: impl FnMut() -> bool) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..CALLS_IN_A_ROUND {
            black_box(call());
        }
        let each = began.elapsed().as_nanos() as f64 / f64::from(CALLS_IN_A_ROUND);
        best = best.min(each);
    }
    println!("  {what:26} {best:9.0} ns");
}

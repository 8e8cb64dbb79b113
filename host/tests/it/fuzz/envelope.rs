//! Frames of clients.

use tokio::{runtime::Runtime, sync::Mutex};
use tokio_tungstenite::tungstenite::Message;

use super::{Target, expect_well, fuzz, server, talker::Talker};
use crate::harness::WITH_CHAT;

/// Pieces of JSON, some of which parsers interpret differently.
pub(super) const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\u0000",
    "\\ud83d",
    "\\udc00\\ud800",
    "\\ud83d\\ude00",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "null",
    "true",
    "-0",
    "1e999",
    "1e-999",
    "99999999999999999999",
    "NaN",
    "//",
    "\"type\":",
    "\"TYPE\":",
    "\"payload\":",
    "\"receiverId\":",
    "\"receiverID\":",
    "\"room\":",
    "\"id\":",
    "\"\u{17f}enderId\":",
    "\"once\":true",
    "\"timestamp\":",
    "\"__proto__\":",
    "\"ann\"",
    "\"chat_message\"",
    "\"join\"",
    "\"leave\"",
    "\"latency_report\"",
    "\"heartbeat\"",
    "\"ack\"",
    "\"token\"",
    "\"history\"",
    "\"since\":",
    "\"last\":",
    "\"before\":",
    "\"epoch\":",
    "\"offset\":9007199254740993",
    "\"presence\":true",
    "\"signalbox.request\"",
];

const TARGET: Target = Target {
    name: "envelope",
    words: JSON_WORDS,
};

/// Rooms in which everything may happen.
const ROOMS: &str = "[[rooms]]\nmatch = \"*\"\nhistory = { size = 100, time = \"5m\" }\npresence = true\n\
                     [presence]\nflush = \"10ms\"\ngrace = \"10ms\"\n";

#[test]
fn any_frame_leaves_the_server_healthy_and_answers_follow_the_protocol() {
    let runtime = Runtime::new().expect("a runtime");
    let config = format!("[limits]\nmessages_per_second = 0\n{ROOMS}{WITH_CHAT}");
    let server = runtime.block_on(server(&[], &config));
    let ann = Mutex::new(Talker::new(&server, "ann"));
    fuzz(&TARGET, |input| {
        let frame = match std::str::from_utf8(input.bytes()) {
            Ok(text) => Message::text(text),
            Err(_) => Message::binary(input.bytes().to_vec()),
        };
        runtime.block_on(async { ann.lock().await.exchange(frame).await });
        Ok(())
    });
    runtime.block_on(expect_well(server));
}

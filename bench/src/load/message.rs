//! The messages that are sent, and the numbers that are read from received messages.
//!
//! A message is a frame of the server's protocol. Its payload is JSON with a text, the send time and the sequence number.
//! Both numbers have a fixed number of digits, so a message of the same length is made by overwriting digits, and a
//! received message is read by looking first where the digits were the last time.

use anyhow::Context as _;

use super::protocol::{Destination, Envelope, NUMBER_BASE, Protocol};

/// Added to the send time in nanoseconds. The sum has 16 digits for the first 100 days, and is below 2^53, so that a
/// JavaScript plugin that parses and rewrites the payload keeps it exact.
const TIME_BASE: u64 = 1_000_000_000_000_000;
const TIME_DIGITS: usize = 16;

/// The digits of a sequence number, to which [`NUMBER_BASE`] is added.
const NUMBER_DIGITS: usize = 10;

const TIME_KEY: &[u8] = b"\"t\":";
const NUMBER_KEY: &[u8] = b"\"n\":";
const SENDER_KEY: &[u8] = b"\"s\":";

/// A message of fixed length whose send time, sequence number and ID are overwritten for each use.
#[derive(Debug)]
pub(super) struct Template {
    text: Vec<u8>,
    time_at: usize,
    number_at: usize,
    /// `None` if the message has no ID.
    id_at: Option<usize>,
}

impl Template {
    /// A message whose payload has exactly `payload_bytes` bytes of JSON.
    pub(super) fn new(
        protocol: &Protocol,
        destination: Destination<'_>,
        payload_bytes: usize,
        acks: bool,
    ) -> anyhow::Result<Self> {
        let sender = match destination {
            Destination::User(_) => String::new(),
            Destination::Room { sender, .. } => format!(",\"s\":{sender}"),
        };
        let (open, close) = ("{\"text\":\"", "\"");
        let numbers = format!(",\"t\":{TIME_BASE},\"n\":{NUMBER_BASE}{sender}}}");
        let fixed = open.len() + close.len() + numbers.len();
        // At least one character: servers refuse blank texts.
        let padding = payload_bytes
            .checked_sub(fixed)
            .filter(|&padding| padding > 0);
        let padding = padding.with_context(|| {
            let least = fixed + 1;
            format!("a payload of {payload_bytes} bytes is too small; --payload must be at least {least}")
        })?;
        let Envelope { head, id_at, tail } = (protocol.envelope)(destination, acks);
        let head = format!("{head}{open}{}{close}", "x".repeat(padding));
        let time_at = head.len() + 1 + TIME_KEY.len();
        let number_at = time_at + TIME_DIGITS + 1 + NUMBER_KEY.len();
        Ok(Self {
            text: format!("{head}{numbers}{tail}").into_bytes(),
            time_at,
            number_at,
            id_at,
        })
    }

    /// Returns the message with these numbers filled in.
    pub(super) fn fill(&mut self, time_ns: u64, number: u64) -> &[u8] {
        let Self {
            text,
            time_at,
            number_at,
            id_at,
        } = self;
        put_digits(
            &mut text[*time_at..*time_at + TIME_DIGITS],
            TIME_BASE + time_ns,
        );
        for at in std::iter::once(*number_at).chain(*id_at) {
            put_digits(&mut text[at..at + NUMBER_DIGITS], NUMBER_BASE + number);
        }
        &self.text
    }
}

/// The numbers in a received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// When the message was sent, or was due to be sent, in nanoseconds of the sender's clock.
    pub(super) time_ns: u64,
    /// The sender's sequence number, from 0.
    pub(super) number: u64,
    /// The sender's index in a room, 0 between pairs.
    pub(super) sender: usize,
}

/// Finds the numbers in messages and remembers their positions: the next message usually has them in the same place.
#[derive(Debug, Default)]
pub(super) struct StampReader {
    time_hint: usize,
    number_hint: usize,
    sender_hint: usize,
}

impl StampReader {
    /// Returns the stamp of one of our messages; `None` for anything else that the server sends.
    pub(super) fn read(&mut self, json: &[u8], with_sender: bool) -> Option<Stamp> {
        let time = number_after(json, TIME_KEY, &mut self.time_hint)?;
        let number = number_after(json, NUMBER_KEY, &mut self.number_hint)?;
        let sender = if with_sender {
            number_after(json, SENDER_KEY, &mut self.sender_hint)?
        } else {
            0
        };
        Some(Stamp {
            time_ns: time.checked_sub(TIME_BASE)?,
            number: number.checked_sub(NUMBER_BASE)?,
            sender: usize::try_from(sender).ok()?,
        })
    }
}

fn number_after(json: &[u8], key: &[u8], hint: &mut usize) -> Option<u64> {
    if json.get(*hint..*hint + key.len()) != Some(key) {
        *hint = json.windows(key.len()).position(|window| window == key)?;
    }
    let digits = &json[*hint + key.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit());
    let digits = &digits[..end.unwrap_or(digits.len())];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn put_digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::protocol::{CENTRIFUGE, SIGNALBOX, SOCKET_IO};

    const ROOM: Destination<'_> = Destination::Room {
        room: "r",
        sender: 3,
    };

    fn filled(
        protocol: &Protocol,
        to: Destination<'_>,
        payload_bytes: usize,
        acks: bool,
    ) -> String {
        let template = Template::new(protocol, to, payload_bytes, acks);
        let mut template = template.expect("the payload is large enough");
        String::from_utf8_lossy(template.fill(77, 5)).into_owned()
    }

    #[test]
    fn the_payload_has_exactly_the_length_asked_for() {
        for destination in [Destination::User("b"), ROOM] {
            let text = filled(&SIGNALBOX, destination, 128, false);
            let value: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
            let payload = text.split_once("\"payload\":").expect("a payload").1;
            assert_eq!(payload.find('}'), Some(127));
            assert_eq!(value["payload"]["t"], TIME_BASE + 77);
            assert_eq!(value["payload"]["n"], NUMBER_BASE + 5);
        }
    }

    #[test]
    fn a_payload_without_room_for_the_numbers_is_refused_with_the_least_length() {
        let new = |bytes| Template::new(&SIGNALBOX, Destination::User("b"), bytes, false);
        let error = new(10).expect_err("10 bytes are too few").to_string();
        let least = error
            .rsplit(' ')
            .next()
            .and_then(|least| least.parse().ok());
        let least: usize = least.expect("the least length");
        assert!(new(least).is_ok() && new(least - 1).is_err());
    }

    #[test]
    fn every_protocol_gets_the_same_payload_and_the_id_of_the_message() {
        let payload = r#"{"text":"xxxxxxxxxxxx","t":1000000000000077,"n":1000000005}"#;
        #[rustfmt::skip]
        let envelopes = [
            (&SIGNALBOX, r#"{"type":"chat_message","id":"1000000005","payload":"#, r#","receiverId":"b"}"#),
            (&SOCKET_IO, r#"421000000005["message","b","#, "]"),
            (&CENTRIFUGE, r#"{"id":1000000005,"publish":{"channel":"user:b","data":"#, "}}"),
        ];
        for (protocol, head, tail) in envelopes {
            let text = filled(protocol, Destination::User("b"), 59, true);
            assert_eq!(text, format!("{head}{payload}{tail}"));
        }
    }

    #[test]
    fn the_stamp_is_found_wherever_the_server_puts_the_payload() {
        let mut reader = StampReader::default();
        let sent = filled(&SIGNALBOX, ROOM, 128, false);
        let stamp = Stamp {
            time_ns: 77,
            number: 5,
            sender: 3,
        };
        assert_eq!(reader.read(sent.as_bytes(), true), Some(stamp));
        let moved = format!("{{\"timestamp\":\"2026\",\"type\":\"x\",\"inner\":{sent}");
        assert_eq!(reader.read(moved.as_bytes(), true), Some(stamp));
        let without_sender = Stamp { sender: 0, ..stamp };
        assert_eq!(reader.read(moved.as_bytes(), false), Some(without_sender));
    }

    #[test]
    fn frames_that_are_no_messages_of_ours_have_no_stamp() {
        let mut reader = StampReader::default();
        for json in [
            "",
            r#"{"type":"error"}"#,
            r#"{"t":1,"n":2}"#,
            r#"{"t":,"n":}"#,
            r#""t":99999999999999999999999"#,
        ] {
            assert_eq!(reader.read(json.as_bytes(), false), None, "{json}");
        }
    }
}

//! The answers of Redis about a history.

use std::{borrow::Cow, time::SystemTime};

use redis::Value;
use signalbox_protocol::{Epoch, Frame, OFFSET_MAX, Position, published};
use signalbox_redis_client::Unavailable;

use crate::{HistoryName, HistoryQuery, KeptMessage};

/// An entry of a log: its ID, and the names and values of its fields in turn.
pub(super) type LogEntry = (String, Vec<Vec<u8>>);

/// The position in the fields of a head; `None` if there is none, or it is malformed.
pub(super) fn position(fields: Value) -> Option<Position> {
    let (epoch, offset): (Option<String>, Option<u64>) = redis::from_redis_value(fields).ok()?;
    Some(Position {
        epoch: Epoch::parse(&epoch?)?,
        offset: offset.filter(|offset| *offset <= OFFSET_MAX)?,
    })
}

/// The entries of a log, newest first.
pub(super) fn entries(answer: Value) -> Result<Vec<LogEntry>, Unavailable> {
    redis::from_redis_value(answer)
        .map_err(|error| Unavailable::new(format!("Redis returned a malformed history: {error}")))
}

/// Whether entries, of which `newest` is the first, were read from the history with this position: not before its last
/// message was appended, and not from another epoch.
pub(super) fn are_of(position: &Position, newest: Option<&LogEntry>, query: HistoryQuery) -> bool {
    let Some((id, fields)) = newest else {
        return true;
    };
    let is_of_epoch = fields.first().map(Vec::as_slice) == Some(position.epoch.as_str().as_bytes());
    let is_late_enough = number(id).is_some_and(|number| number >= position.offset);
    is_of_epoch && (query.before.is_some() || is_late_enough)
}

/// The messages of the history `name` in `entries`, oldest first. An entry that is no such message, or a gap, ends the history:
/// nothing older is returned.
pub(super) fn messages(
    entries: Vec<LogEntry>,
    epoch: &Epoch,
    name: HistoryName<'_>,
) -> Vec<KeptMessage> {
    let mut messages: Vec<KeptMessage> = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(message) = message(entry, epoch, name) else {
            break;
        };
        let mut newer = messages.last().into_iter();
        if newer.any(|newer| message.offset + 1 != newer.offset) {
            break;
        }
        messages.push(message);
    }
    messages.reverse();
    messages
}

fn message((id, fields): LogEntry, epoch: &Epoch, name: HistoryName<'_>) -> Option<KeptMessage> {
    let offset = number(&id)?;
    let [of_epoch, frame] = <[Vec<u8>; 2]>::try_from(fields).ok()?;
    if of_epoch != epoch.as_str().as_bytes() {
        return None;
    }
    let text = String::from_utf8(frame).ok()?;
    let published = published::normalise(&text, SystemTime::now()).ok()?;
    let receivers = (published.receiver.as_deref(), published.room.as_deref());
    let owner = match name {
        HistoryName::Room(room) => (None, Some(room)),
        HistoryName::User(user) => (Some(user), None),
    };
    if receivers != owner {
        return None;
    }
    let rewritten = match published.frame {
        Cow::Borrowed(_) => None,
        Cow::Owned(rewritten) => Some(rewritten),
    };
    let frame = Frame::from(rewritten.unwrap_or(text)).with_offset(offset);
    Some(KeptMessage { offset, frame })
}

/// The number of the message in the entry `id`.
fn number(id: &str) -> Option<u64> {
    let number = id.strip_suffix("-0")?.parse().ok()?;
    (1..=OFFSET_MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &str = r#"{"type":"chat","payload":1,"receiverID":"","senderId":"s","timestamp":"2026-01-02T03:04:05Z","room":"r"}"#;

    const ROOM: HistoryName<'_> = HistoryName::Room("r");

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::parse("e1").unwrap(),
            offset,
        }
    }

    fn entry(id: &str, fields: &[&str]) -> LogEntry {
        let fields = fields.iter().map(|field| field.as_bytes().to_vec());
        (id.to_owned(), fields.collect())
    }

    fn numbers(entries: Vec<LogEntry>) -> Vec<u64> {
        let messages = messages(entries, &at(0).epoch, ROOM).into_iter();
        messages.map(|message| message.offset).collect()
    }

    #[test]
    fn a_head_without_a_sound_position_is_none() {
        let head = |epoch, offset| position(Value::Array(vec![epoch, offset]));
        assert_eq!(head(text("e1"), text("7")), Some(at(7)));
        let largest = OFFSET_MAX.to_string();
        assert_eq!(head(text("e1"), text(&largest)), Some(at(OFFSET_MAX)));
        for (epoch, offset) in [
            (Value::Nil, Value::Nil),
            (text("e1"), Value::Nil),
            (Value::Nil, text("7")),
            (text("e 1"), text("7")),
            (text("e1"), text("-7")),
            (text("e1"), text("9007199254740992")),
            (Value::BulkString(vec![0xff]), text("7")),
        ] {
            assert_eq!(head(epoch, offset), None);
        }
        assert_eq!(position(Value::Nil), None);
    }

    #[test]
    fn entries_are_read_as_redis_gives_them() {
        let fields = Value::Array(vec![text("e1"), text("x")]);
        let answer = Value::Array(vec![Value::Array(vec![text("7-0"), fields])]);
        assert_eq!(entries(answer), Ok(vec![entry("7-0", &["e1", "x"])]));
        assert_eq!(entries(Value::Array(Vec::new())), Ok(Vec::new()));
        assert_eq!(entries(Value::Nil), Ok(Vec::new()), "with a limit of 0");
        assert!(entries(text("x")).is_err());
    }

    #[test]
    fn messages_come_in_order_with_their_numbers() {
        let entries = vec![entry("9-0", &["e1", FRAME]), entry("8-0", &["e1", FRAME])];
        let messages = messages(entries, &at(0).epoch, ROOM);
        let frame = Frame::from(FRAME.to_owned());
        let expected = [8, 9].map(|offset| KeptMessage {
            offset,
            frame: frame.with_offset(offset),
        });
        assert_eq!(messages, expected);
    }

    #[test]
    fn a_foreign_entry_ends_the_history() {
        let good = |id| entry(id, &["e1", FRAME]);
        let other_room = FRAME.replace(r#""room":"r""#, r#""room":"q""#);
        for bad in [
            entry("8-0", &["e2", FRAME]),
            entry("8-0", &["e1", "{"]),
            entry("8-0", &["e1", &other_room]),
            entry("8-0", &["e1"]),
            entry("8-0", &["e1", FRAME, "e1", FRAME]),
            entry("8-1", &["e1", FRAME]),
            ("8-0".to_owned(), vec![b"e1".to_vec(), vec![0xff]]),
        ] {
            let reason = format!("{bad:?}");
            assert_eq!(
                numbers(vec![good("9-0"), bad, good("7-0")]),
                [9],
                "{reason}"
            );
        }
        assert_eq!(numbers(vec![good("9-0"), good("7-0"), good("6-0")]), [9]);
        assert_eq!(numbers(vec![good("3-0"), good("2-0")]), [2, 3]);
    }

    #[test]
    fn the_history_of_a_user_consists_of_messages_to_the_user() {
        let to_user = r#"{"type":"chat","payload":1,"receiverID":"r","senderId":"s","timestamp":"2026-01-02T03:04:05Z"}"#;
        let entries = || vec![entry("1-0", &["e1", to_user])];
        let of = |name| messages(entries(), &at(0).epoch, name).len();
        assert_eq!(of(HistoryName::User("r")), 1);
        assert_eq!((of(HistoryName::User("q")), of(ROOM)), (0, 0));
    }

    #[test]
    fn a_read_that_met_a_change_is_noticed() {
        let is_sound = |before, newest: Option<LogEntry>| {
            let query = HistoryQuery {
                after: 0,
                before,
                limit: 9,
            };
            are_of(&at(5), newest.as_ref(), query)
        };
        let newest = |id| Some(entry(id, &["e1", FRAME]));
        assert!(is_sound(None, None) && is_sound(None, newest("5-0")));
        assert!(is_sound(None, newest("6-0")), "appended in between");
        assert!(
            !is_sound(None, newest("4-0")),
            "appended after the log was read"
        );
        assert!(is_sound(Some(5), newest("4-0")));
        let other_epoch = || Some(entry("5-0", &["e2", FRAME]));
        assert!(!is_sound(None, other_epoch()) && !is_sound(Some(6), other_epoch()));
    }
}

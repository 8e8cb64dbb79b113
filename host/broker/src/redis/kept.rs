//! A message of a history on a server's channel: it carries its position.
//!
//! Like a trace, the position is a line before the message, which the other node removes. The message itself is as it is in
//! the history, without its number. It names its room or user. One that is passed on to the new node of a user has a mark
//! ([`super::marks`]) before that line. Nodes whose lease does not announce that they understand the line get the message alone.

use signalbox_protocol::{Epoch, OFFSET_MAX, Position};

/// The beginning of such a text; epoch and number follow, with a space between them.
const BEGIN: &str = r#"{"type":"signalbox.kept","payload":""#;

/// Separates the position from the message.
const END: &str = "\"}\n";

/// A text, taken apart.
#[derive(Debug)]
pub(super) struct KeptText<'a> {
    /// The epoch and the number of the message; `None` if they are malformed.
    pub(super) at: Option<Position>,
    /// The message itself.
    pub(super) message: &'a str,
}

/// The prefix of the message number `at.offset`.
pub(super) fn line(at: &Position) -> String {
    format!("{BEGIN}{} {}{END}", at.epoch, at.offset)
}

/// Takes a text with a [line](line()) apart; `None` if it has none.
pub(super) fn read(text: &str) -> Option<KeptText<'_>> {
    let (position, message) = text.strip_prefix(BEGIN)?.split_once(END)?;
    Some(KeptText {
        at: parse(position),
        message,
    })
}

fn parse(position: &str) -> Option<Position> {
    let (epoch, offset) = position.split_once(' ')?;
    let epoch = Epoch::parse(epoch)?;
    let offset = offset.parse().ok()?;
    let is_number = (1..=OFFSET_MAX).contains(&offset);
    is_number.then_some(Position { epoch, offset })
}

#[cfg(test)]
mod tests {
    use super::{super::control, *};

    #[test]
    fn a_message_comes_out_as_it_went_in_with_its_position() {
        let message = "{\"type\":\"chat\",\"payload\":\"a\\\"}\\n\"}";
        for offset in [1, OFFSET_MAX] {
            let at = Position {
                epoch: Epoch::random(7),
                offset,
            };
            let text = line(&at) + message;
            let kept = read(&text).expect("it has a position");
            assert_eq!((kept.at, kept.message), (Some(at), message));
        }
        assert!(read(message).is_none());
    }

    #[test]
    fn a_malformed_position_is_none() {
        let too_large = format!("e {}", OFFSET_MAX + 1);
        for position in ["", "e", "e ", "e x", "e 0", "e -1", " 1", "é 1", &too_large] {
            let text = format!("{BEGIN}{position}{END}x");
            let kept = read(&text).expect("it has a line");
            assert_eq!((kept.at, kept.message), (None, "x"), "{position:?}");
        }
    }

    #[test]
    fn it_begins_as_nothing_does_that_clients_get() {
        assert!(BEGIN.starts_with(control::START));
    }
}

//! A message of a history on a server's channel: it carries its position.
//!
//! The position is a [line](super::line) before the message. The message itself is as it is in the history, without its number. It names its room or user. One that is passed on to the new node of a user has a mark
//! ([`super::marks`]) before that line. Nodes whose lease does not announce that they understand the line get the message alone.

use std::fmt::Write as _;

use signalbox_protocol::{Epoch, OFFSET_MAX, Position};

use super::line::LineKind;

/// A text, taken apart.
#[derive(Debug)]
pub(super) struct KeptText<'a> {
    /// The epoch and the number of the message; `None` if they are malformed.
    pub(super) at: Option<Position>,
    /// The message itself.
    pub(super) message: &'a str,
}

/// The prefix of the message number `at.offset`: epoch and number, with a space between them.
pub(super) fn line(at: &Position) -> String {
    LineKind::KEPT.write(|line| {
        // Writing to a string never fails.
        let _ = write!(line, "{} {}", at.epoch, at.offset);
    })
}

/// Takes a text with a [line](line()) apart; `None` if it has none.
pub(super) fn read(text: &str) -> Option<KeptText<'_>> {
    let (position, message) = LineKind::KEPT.split(text)?;
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
    use super::*;

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
            let text = LineKind::KEPT.write(|line| line.push_str(position)) + "x";
            let kept = read(&text).expect("it has a line");
            assert_eq!((kept.at, kept.message), (None, "x"), "{position:?}");
        }
    }
}

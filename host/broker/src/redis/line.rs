//! The line before a message on a server's channel, which carries something about it.
//!
//! Clients get a message as the bytes that were published, so what servers say about it cannot be a field of it. It is a separate
//! line, with the same beginning as all texts between nodes, and the other node removes it.

/// A kind of line.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineKind {
    /// Its beginning, up to the content.
    begin: &'static str,
}

/// Separates the content from the message.
const END: &str = "\"}\n";

impl LineKind {
    /// The trace that a message is part of.
    pub(super) const TRACED: Self = Self {
        begin: r#"{"type":"signalbox.traced","payload":""#,
    };
    /// The way of a message for a user.
    pub(super) const TO: Self = Self {
        begin: r#"{"type":"signalbox.to","payload":""#,
    };
    /// The position of a message in a history.
    pub(super) const KEPT: Self = Self {
        begin: r#"{"type":"signalbox.kept","payload":""#,
    };

    /// A line with the content that `write` appends, in which no character may need escaping in JSON.
    pub(super) fn write(self, write: impl FnOnce(&mut String)) -> String {
        let mut line = self.begin.to_owned();
        write(&mut line);
        line.push_str(END);
        line
    }

    /// Takes a text apart into the content of its line, and the message; `None` if it has no line of this kind.
    pub(super) fn split(self, text: &str) -> Option<(&str, &str)> {
        text.strip_prefix(self.begin)?.split_once(END)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::control, *};

    const ALL: [LineKind; 3] = [LineKind::TRACED, LineKind::TO, LineKind::KEPT];

    #[test]
    fn a_message_comes_out_as_it_went_in_with_the_content_of_its_line() {
        let message = "{\"type\":\"chat\",\"payload\":\"a\\\"}\\n\"}";
        for kind in ALL {
            let text = kind.write(|line| line.push_str("1 e")) + message;
            assert_eq!(kind.split(&text), Some(("1 e", message)));
            assert_eq!(kind.split(message), None);
            let others = ALL.iter().filter(|other| other.begin != kind.begin);
            assert!(others.into_iter().all(|other| other.split(&text).is_none()));
        }
    }

    #[test]
    fn a_line_has_a_prefix_that_no_frame_for_clients_has() {
        for kind in ALL {
            assert!(kind.begin.starts_with(control::START));
        }
    }
}

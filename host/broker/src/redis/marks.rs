//! The prefix of a message for a user on a server's channel: how often it was forwarded, and which servers have it.
//!
//! A server that finds the user gone forwards the message to where they are now ([`super::held`]). It must know which other
//! servers have it, or a user with two devices would get it twice, and which ones passed it on, because users can come back there
//! and because each of them waits for it to arrive ([`super::waiting`]).
//! The mark is a [line](super::line) before the message, and goes only to servers whose lease says that they take it off. Workers and servers of `websocket-app` publish without a mark.

use std::{fmt::Write as _, sync::Arc};

use super::{keys::ServerId, line::LineKind};

/// Comes before the servers that passed the message on.
const PASSED_ON: &str = "|";

/// How often a message may be forwarded, so that wrong routes cannot send it in circles.
pub(super) const HOPS_MAX: u8 = 3;

/// The servers that a message went to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    /// The servers that have it: they deliver it, or pass it on.
    pub(super) servers: Vec<ServerId>,
    /// The servers that had it, found the user gone, and passed it on, each with the number that it gave the message. Users who
    /// came back there do not have it.
    pub(super) passed_on: Vec<(ServerId, u64)>,
}

impl Trail {
    /// The number under which `server` passed it on.
    pub(super) fn number_of(&self, server: &ServerId) -> Option<u64> {
        let mut passed_on = self.passed_on.iter();
        let found = passed_on.find(|(other, _)| other == server);
        found.map(|(_, number)| *number)
    }
}

/// The content of a mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark<'a> {
    /// How often it was forwarded.
    pub(super) hops: u8,
    /// A hash of the message as it was first published; 0 if it was not forwarded.
    pub(super) identity: u64,
    trail: &'a str,
}

impl Mark<'_> {
    pub(super) fn trail(&self) -> Trail {
        let mut words = self.trail.split(' ').filter(|word| !word.is_empty());
        let servers = words.by_ref().take_while(|word| *word != PASSED_ON);
        let servers = servers.map(Arc::from).collect();
        let pair = || Some((words.next()?.into(), words.next()?.parse().ok()?));
        Trail {
            servers,
            passed_on: std::iter::from_fn(pair).collect(),
        }
    }
}

/// The line before a message: hops, identity, the servers that have the message, and after [`PASSED_ON`] those that passed it on,
/// each with its number for it, with a space between them.
pub(super) fn line(hops: u8, identity: u64, trail: &Trail) -> String {
    LineKind::TO.write(|line| {
        // Writing to a string never fails.
        let _ = write!(line, "{hops} {identity:x}");
        for server in trail.servers.iter().filter(|server| is_plain(server)) {
            line.extend([" ", server]);
        }
        if !trail.passed_on.is_empty() {
            line.extend([" ", PASSED_ON]);
        }
        let passed_on = trail.passed_on.iter();
        for (server, number) in passed_on.filter(|(server, _)| is_plain(server)) {
            let _ = write!(line, " {server} {number}");
        }
    })
}

/// Splits a text into its mark and the message; `None` if it has no mark.
pub(super) fn read(text: &str) -> Option<(Mark<'_>, &str)> {
    let (mark, message) = LineKind::TO.split(text)?;
    let (hops, rest) = mark.split_once(' ')?;
    let (identity, trail) = rest.split_once(' ').unwrap_or((rest, ""));
    let mark = Mark {
        hops: hops.parse().ok()?,
        identity: u64::from_str_radix(identity, 16).ok()?,
        trail,
    };
    Some((mark, message))
}

/// Whether an ID can stand in a line. All that nodes make can.
fn is_plain(id: &str) -> bool {
    let breaks = |c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '\\';
    !id.is_empty() && id != PASSED_ON && !id.contains(breaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(servers: &[&str], passed_on: &[(&str, u64)]) -> Trail {
        let numbered = |(id, number): &(&str, u64)| (Arc::from(*id), *number);
        Trail {
            servers: servers.iter().map(|id| Arc::from(*id)).collect(),
            passed_on: passed_on.iter().map(numbered).collect(),
        }
    }

    #[test]
    fn a_message_comes_out_as_it_went_in_with_the_content_of_its_mark() {
        let message = "{\"type\":\"chat\",\"payload\":\"a\\\"}\\n\"}";
        for trail in [
            trail(&[], &[]),
            trail(&["a-1"], &[]),
            trail(&["a-1", "b-2"], &[("c", 0), ("d", u64::MAX)]),
            trail(&[], &[("c", 7)]),
        ] {
            let text = line(2, 0xfeed, &trail) + message;
            let (mark, rest) = read(&text).expect("it is marked");
            assert_eq!((mark.hops, mark.identity, rest), (2, 0xfeed, message));
            assert_eq!(mark.trail(), trail);
        }
        assert_eq!(read(message), None);
    }

    #[test]
    fn an_id_that_would_break_the_line_is_left_out() {
        let broken = trail(&["a b", "\"}\n", "", "|", "c"], &[("|", 1), ("d", 2)]);
        let text = line(0, 0, &broken) + "x";
        let (mark, message) = read(&text).expect("it is marked");
        assert_eq!((mark.trail(), message), (trail(&["c"], &[("d", 2)]), "x"));
    }

    #[test]
    fn foreign_text_is_not_taken_for_a_mark() {
        for content in ["", "x 0", "1 z", "300 0"] {
            let text = LineKind::TO.write(|line| line.push_str(content)) + "x";
            assert_eq!(read(&text), None, "{content:?}");
        }
        let without_end = LineKind::TO.write(|line| line.push_str("1 0"));
        assert_eq!(read(without_end.trim_end()), None);
    }

    #[test]
    fn a_server_without_its_number_ends_the_list() {
        for rest in ["c", "c x d 2", "c -1"] {
            let text = LineKind::TO.write(|line| line.extend(["1 1 a | b 1 ", rest]));
            let (mark, _) = read(&text).expect("it is marked");
            assert_eq!(mark.trail(), trail(&["a"], &[("b", 1)]), "{rest}");
            assert_eq!(mark.trail().number_of(&Arc::from("b")), Some(1));
            assert_eq!(mark.trail().number_of(&Arc::from("c")), None);
        }
    }
}

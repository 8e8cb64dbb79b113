//! The prefix of a message for a user on a server's channel: how often it was forwarded, and which servers have it.
//!
//! A server that finds the user gone forwards the message to where they are now ([`super::held`]). It must know who else
//! got it, or a user with two devices would get it twice. Like a trace, the mark is a line before the message, which the
//! server takes off, and goes only to servers whose lease says that they do so. Workers and servers of `websocket-app`
//! publish without a mark.

use super::keys::ServerId;

/// How such a line begins; hops, identity and the servers follow, with a space between them.
const BEGIN: &str = r#"{"type":"signalbox.to","payload":""#;

/// The end of the prefix.
const END: &str = "\"}\n";

/// How often a message may be forwarded, so that wrong routes cannot make it go in circles.
pub(super) const HOPS_MAX: u8 = 3;

/// The content of a mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark<'a> {
    /// How often it was forwarded.
    pub(super) hops: u8,
    /// A hash of the message as it was first published; 0 if it was not forwarded.
    pub(super) identity: u64,
    servers: &'a str,
}

impl Mark<'_> {
    /// The servers that have the message, beside the one that reads this.
    pub(super) fn servers(&self) -> impl Iterator<Item = &str> {
        self.servers.split(' ').filter(|server| !server.is_empty())
    }
}

/// The line before a message that went to `servers`.
pub(super) fn line(hops: u8, identity: u64, servers: &[ServerId]) -> String {
    let mut line = format!("{BEGIN}{hops} {identity:x}");
    for server in servers.iter().filter(|server| is_plain(server)) {
        line.push(' ');
        line.push_str(server);
    }
    line.push_str(END);
    line
}

/// Takes the mark off; none if there is none.
pub(super) fn read(text: &str) -> Option<(Mark<'_>, &str)> {
    let (mark, message) = text.strip_prefix(BEGIN)?.split_once(END)?;
    let (hops, rest) = mark.split_once(' ')?;
    let (identity, servers) = rest.split_once(' ').unwrap_or((rest, ""));
    let mark = Mark {
        hops: hops.parse().ok()?,
        identity: u64::from_str_radix(identity, 16).ok()?,
        servers,
    };
    Some((mark, message))
}

/// Whether the ID can stand in a line. All that nodes make can.
fn is_plain(server: &str) -> bool {
    let breaks = |c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '\\';
    !server.is_empty() && !server.contains(breaks)
}

#[cfg(test)]
mod tests {
    use super::{super::control, *};

    #[test]
    fn a_message_comes_out_as_it_went_in_with_what_the_mark_says() {
        let message = "{\"type\":\"chat\",\"payload\":\"a\\\"}\\n\"}";
        for servers in [&[][..], &["a-1".into()], &["a-1".into(), "b-2".into()]] {
            let text = line(2, 0xfeed, servers) + message;
            let (mark, rest) = read(&text).expect("it is marked");
            assert_eq!((mark.hops, mark.identity, rest), (2, 0xfeed, message));
            let read: Vec<&str> = mark.servers().collect();
            let servers: Vec<&str> = servers.iter().map(|server| &**server).collect();
            assert_eq!(read, servers);
        }
        assert_eq!(read(message), None);
    }

    #[test]
    fn an_id_that_would_break_the_line_is_left_out() {
        let servers: Vec<ServerId> = ["a b", "\"}\n", "", "c"].map(Into::into).to_vec();
        let text = line(0, 0, &servers) + "x";
        let (mark, message) = read(&text).expect("it is marked");
        assert_eq!((mark.servers().collect(), message), (vec!["c"], "x"));
    }

    #[test]
    fn what_is_no_mark_is_not_taken_for_one() {
        for rest in ["\"}\nx", "x 0\"}\nx", "1 z\"}\nx", "300 0\"}\nx", "1 0"] {
            assert_eq!(read(&format!("{BEGIN}{rest}")), None, "{rest:?}");
        }
    }

    #[test]
    fn it_begins_as_nothing_does_that_clients_get() {
        assert!(BEGIN.starts_with(control::START));
    }
}

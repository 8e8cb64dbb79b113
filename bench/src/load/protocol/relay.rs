//! The relay: the receiver or the room is in the query, and frames are forwarded unread.

use super::{Destination, Envelope, Incoming, Protocol, Purpose, Signalbox};

/// `signalbox-bench relay`.
#[derive(Debug)]
pub(in crate::load) struct Relay;

impl Protocol for Relay {
    fn query(&self, purpose: &Purpose) -> String {
        match purpose {
            Purpose::Idle => String::new(),
            Purpose::Member(room) => format!("&room={room}"),
            Purpose::Peer(user) => format!("&peer={user}"),
        }
    }

    fn can_ack(&self) -> bool {
        false
    }

    /// The message that Signalbox would get.
    fn envelope(&self, destination: Destination<'_>, _acks: bool) -> Envelope {
        Signalbox.envelope(destination, false)
    }

    fn classify(&self, text: &[u8]) -> Incoming {
        Signalbox.classify(text)
    }
}

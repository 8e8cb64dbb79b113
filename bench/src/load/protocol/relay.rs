//! The relays: the receiver or the room is in the query, and frames are forwarded unread.

use super::{Destination, Envelope, Incoming, Protocol, Signalbox};
use crate::load::plan::{Mode, Plan};

/// `signalbox-bench relay`, with or without `--stock`.
#[derive(Debug)]
pub(in crate::load) struct Relay;

impl Protocol for Relay {
    fn query(&self, plan: &Plan, index: usize) -> String {
        match plan.mode {
            Mode::Idle { .. } => String::new(),
            Mode::Room { .. } => format!("&room={}", plan.room()),
            Mode::Pairs { .. } | Mode::Open { .. } => format!("&peer={}", plan.user(index ^ 1)),
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

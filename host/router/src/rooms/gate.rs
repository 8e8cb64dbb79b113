//! Holds back live messages for a member that is still catching up.

use std::sync::Arc;

use signalbox_protocol::Frame;

use crate::Connection;

/// Charged for a held message in addition to its bytes.
const HELD_OVERHEAD_BYTES: usize = 64;

/// The live messages of a room for one member that first gets old ones.
#[derive(Debug)]
pub(super) struct CatchUpGate {
    connection: Arc<Connection>,
    frames: Vec<HeldMessage>,
    bytes: usize,
    bytes_max: usize,
    is_over: bool,
    /// Set once the member has its old messages: the number of the last of them.
    caught_up_to: Option<u64>,
}

/// A message that waits at a gate.
#[derive(Debug)]
pub(super) struct HeldMessage {
    /// Its number; `None` if it is not part of the history.
    pub(super) offset: Option<u64>,
    pub(super) frame: Frame,
}

impl CatchUpGate {
    /// A gate for `connection` that holds at most `bytes_max` bytes.
    pub(super) fn new(connection: Arc<Connection>, bytes_max: usize) -> Self {
        Self {
            connection,
            frames: Vec::new(),
            bytes: 0,
            bytes_max,
            is_over: false,
            caught_up_to: None,
        }
    }

    /// The member.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Holds a message back. If there are too many bytes, all are discarded, and [`CatchUpGate::is_over`] returns `true`.
    pub(super) fn hold(&mut self, offset: Option<u64>, frame: &Frame) {
        if self.is_over {
            return;
        }
        self.bytes += frame.len() + HELD_OVERHEAD_BYTES;
        if self.bytes > self.bytes_max {
            self.frames = Vec::new();
            self.is_over = true;
            return;
        }
        let frame = frame.clone();
        self.frames.push(HeldMessage { offset, frame });
    }

    /// Whether messages were discarded.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Discards the messages that wait.
    pub(super) fn clear(&mut self) {
        self.frames = Vec::new();
        self.bytes = 0;
        self.is_over = false;
    }

    /// Notes that the member has all messages up to `offset`, and returns the later ones that wait.
    pub(super) fn catch_up(&mut self, offset: u64) -> Vec<HeldMessage> {
        self.caught_up_to = Some(offset);
        self.bytes = 0;
        let mut frames = std::mem::take(&mut self.frames);
        frames.retain(|held| held.offset.is_none_or(|number| number > offset));
        frames
    }

    /// The number of the last old message of a member that has caught up, and only waits for the room to get as far.
    pub(super) fn caught_up_to(&self) -> Option<u64> {
        self.caught_up_to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::connection;

    fn frame(text: &str) -> Frame {
        Frame::from(text.to_owned())
    }

    #[test]
    fn messages_after_the_old_ones_are_kept_in_order() {
        let mut gate = CatchUpGate::new(connection("a"), 1 << 20);
        gate.hold(Some(1), &frame("1"));
        gate.hold(None, &frame("x"));
        gate.hold(Some(2), &frame("2"));
        gate.hold(Some(3), &frame("3"));
        let held = gate.catch_up(2);
        let texts: Vec<&str> = held.iter().map(|held| held.frame.as_str()).collect();
        assert_eq!(texts, ["x", "3"]);
        assert_eq!(gate.caught_up_to(), Some(2));
    }

    #[test]
    fn a_gate_is_bounded_in_bytes() {
        let mut gate = CatchUpGate::new(connection("a"), 200);
        gate.hold(Some(1), &frame("1"));
        gate.hold(Some(2), &frame("2"));
        assert!(!gate.is_over());
        gate.hold(Some(3), &frame(&"x".repeat(100)));
        assert!(gate.is_over());
        gate.hold(Some(4), &frame("4"));
        assert!(gate.catch_up(0).is_empty());
        gate.clear();
        assert!(!gate.is_over());
    }
}

//! The order of a room's history on this node: each message once, in the order of the numbers.
//!
//! Messages of several senders may come in any order. One that comes too early waits for those before it; if they do not come,
//! [`crate::repair`] reads them from the history. This state machine only decides; [`super::RoomTable`] delivers.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
    time::Duration,
};

use signalbox_broker::{HistoryPage, KeptMessage, Retention};
use signalbox_protocol::{Epoch, Frame, Position, RecoveryFailure};
use tokio::time::Instant;

use super::gate::CatchUpGate;

/// The most bytes that wait for earlier messages. Beyond it, all of them are read from the history again.
const EARLY_BYTES_MAX: usize = 4 << 20;

/// The delivered messages that are remembered, to notice that a history lost some and gave their numbers to others.
const REMEMBERED: usize = 32;

/// What the history of one room has delivered on this node.
#[derive(Debug)]
pub(super) struct Sequence {
    retention: Retention,
    /// The last message that was delivered; `None` until the history has been read.
    delivered: Option<Position>,
    /// The numbers and hashes of the last delivered messages.
    recent: VecDeque<(u64, u64)>,
    /// Messages that came too early.
    early: BTreeMap<u64, Frame>,
    /// The epoch of messages that came before the position was known.
    early_epoch: Option<Epoch>,
    early_bytes: usize,
    /// The members that are catching up, by the number of their connection.
    pub(super) gates: HashMap<u64, CatchUpGate>,
    last_delivery: Option<Instant>,
    /// When this node last read the history, or delivered a message of it.
    last_use: Instant,
}

/// The reaction to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptArrival {
    /// It can be delivered, possibly with others that waited for it.
    InOrder,
    /// It waits for others, which must be read from the history if they do not come.
    Early,
    /// It was delivered before.
    Repeated,
    /// It does not fit the history as this node knows it: the history must be read.
    Contradiction,
}

/// The result of comparing with the history itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Nothing is missing that cannot be delivered now.
    Complete,
    /// Members missed messages for this reason, and continue after this position.
    Missed(RecoveryFailure, Position),
    /// The history lost messages that were delivered: it must be reset, because their numbers were, or will be, given to
    /// others.
    RolledBack,
}

impl Sequence {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            retention,
            delivered: None,
            recent: VecDeque::new(),
            early: BTreeMap::new(),
            early_epoch: None,
            early_bytes: 0,
            gates: HashMap::new(),
            last_delivery: None,
            last_use: Instant::now(),
        }
    }

    /// The last message that was delivered; `None` until the history has been read.
    pub(super) fn delivered(&self) -> Option<&Position> {
        self.delivered.as_ref()
    }

    pub(super) fn retention(&self) -> Retention {
        self.retention
    }

    pub(super) fn set_retention(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// The number after which the history must be read for [`Sequence::compare`].
    pub(super) fn compare_after(&self) -> u64 {
        let oldest = self.recent.front().map(|(offset, _)| *offset);
        let delivered = self.delivered.as_ref().map_or(0, |at| at.offset);
        oldest.map_or(delivered, |oldest| oldest.saturating_sub(1))
    }

    /// Whether messages wait for earlier ones.
    pub(super) fn is_waiting(&self) -> bool {
        !self.early.is_empty()
    }

    /// Whether a message was delivered within `time`.
    pub(super) fn delivered_within(&self, time: Duration) -> bool {
        self.last_delivery.is_some_and(|at| at.elapsed() < time)
    }

    /// Whether the history would forget its position unless it is read soon.
    pub(super) fn is_fading(&self) -> bool {
        self.last_use.elapsed() > self.retention.position_time() / 2
    }

    /// Sets the position after the history was read for the first time.
    pub(super) fn begin_after(&mut self, position: &Position) {
        if self.delivered.is_some() {
            return;
        }
        self.delivered = Some(position.clone());
        self.last_use = Instant::now();
        if self.early_epoch.take().as_ref() == Some(&position.epoch) {
            self.discard_early(position.offset);
        } else {
            self.clear_early();
        }
    }

    /// Sets the position before the first message that waits, because nobody waits for the history to be read.
    pub(super) fn begin_with_waiting(&mut self) {
        let first = self.early.first_key_value().map(|(offset, _)| *offset);
        if self.delivered.is_none()
            && let (Some(epoch), Some(first)) = (self.early_epoch.take(), first)
        {
            self.delivered = Some(Position {
                epoch,
                offset: first.saturating_sub(1),
            });
        }
    }

    /// Takes message `at.offset` in. Afterwards, [`Sequence::next`] returns the messages to deliver.
    pub(super) fn take(&mut self, at: &Position, frame: &Frame) -> KeptArrival {
        let Some(delivered) = &self.delivered else {
            if self.early_epoch.as_ref() != Some(&at.epoch) {
                self.early_epoch = Some(at.epoch.clone());
                self.clear_early();
            }
            self.keep_early(at.offset, frame);
            if self.gates.is_empty() {
                // The members were here before the room had a history.
                self.begin_with_waiting();
                return KeptArrival::InOrder;
            }
            return KeptArrival::Early;
        };
        if delivered.epoch != at.epoch {
            return KeptArrival::Contradiction;
        }
        let next = delivered.offset + 1;
        if at.offset < next {
            return match self.remembers(at.offset, frame) {
                Some(true) => KeptArrival::Repeated,
                _ => KeptArrival::Contradiction,
            };
        }
        self.keep_early(at.offset, frame);
        if at.offset == next {
            KeptArrival::InOrder
        } else {
            KeptArrival::Early
        }
    }

    /// The next message to deliver, if it is there. It counts as delivered.
    pub(super) fn next(&mut self) -> Option<KeptMessage> {
        let delivered = self.delivered.as_mut()?;
        let offset = delivered.offset + 1;
        let frame = self.early.remove(&offset)?;
        self.early_bytes -= frame.len();
        delivered.offset = offset;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((offset, hash(&frame)));
        self.last_use = Instant::now();
        self.last_delivery = Some(self.last_use);
        Some(KeptMessage { offset, frame })
    }

    /// Compares with `page`, whose messages come after [`Sequence::compare_after`], and takes in those that are missing.
    /// `before` is the last message that was delivered when the read began.
    pub(super) fn compare(&mut self, page: &HistoryPage, before: &Position) -> Comparison {
        self.last_use = Instant::now();
        let Some(delivered) = self.delivered.clone() else {
            self.begin_after(&page.position);
            return Comparison::Complete;
        };
        if page.position.epoch != delivered.epoch {
            return self.move_to(&page.position, RecoveryFailure::Epoch);
        }
        let is_known = |kept: &&KeptMessage| kept.offset <= delivered.offset;
        let differs = |kept: &KeptMessage| self.remembers(kept.offset, &kept.frame) == Some(false);
        let mut known = page.messages.iter().filter(is_known);
        if page.position.offset < before.offset || known.any(differs) {
            return Comparison::RolledBack;
        }
        let mut next = delivered.offset + 1;
        for kept in page.messages.iter().filter(|kept| !is_known(kept)) {
            if kept.offset != next {
                break;
            }
            self.keep_early(kept.offset, &kept.frame);
            next += 1;
        }
        if next <= page.position.offset {
            return self.move_to(&page.position, RecoveryFailure::Expired);
        }
        Comparison::Complete
    }

    /// Continues after `position`, because the messages before it cannot be delivered.
    fn move_to(&mut self, position: &Position, reason: RecoveryFailure) -> Comparison {
        let same_epoch = self.delivered.as_ref().map(|at| &at.epoch) == Some(&position.epoch);
        self.delivered = Some(position.clone());
        self.recent.clear();
        if same_epoch {
            self.discard_early(position.offset);
        } else {
            self.clear_early();
        }
        for gate in self.gates.values_mut() {
            gate.clear();
        }
        Comparison::Missed(reason, position.clone())
    }

    /// Whether message `offset` was this one; `None` if that is not known any more.
    fn remembers(&self, offset: u64, frame: &Frame) -> Option<bool> {
        let known = self
            .recent
            .iter()
            .rev()
            .find(|(number, _)| *number == offset);
        known.map(|(_, known)| *known == hash(frame))
    }

    fn keep_early(&mut self, offset: u64, frame: &Frame) {
        let next = self.delivered.as_ref().map(|at| at.offset + 1);
        if self.early_bytes + frame.len() > EARLY_BYTES_MAX && next != Some(offset) {
            // They are all in the history.
            self.clear_early();
            return;
        }
        if let Some(replaced) = self.early.insert(offset, frame.clone()) {
            self.early_bytes -= replaced.len();
        }
        self.early_bytes += frame.len();
    }

    fn clear_early(&mut self) {
        self.early.clear();
        self.early_bytes = 0;
    }

    fn discard_early(&mut self, up_to: u64) {
        self.early = self.early.split_off(&(up_to + 1));
        self.early_bytes = self.early.values().map(Frame::len).sum();
    }
}

fn hash(frame: &Frame) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one(frame.as_str())
}

#[cfg(test)]
mod tests;

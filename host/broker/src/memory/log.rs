//! One history in memory.

use std::{collections::VecDeque, time::Duration};

use signalbox_protocol::{Epoch, Frame, OFFSET_MAX, Position};

use crate::{HistoryPage, HistoryQuery, KeptMessage, Retention, history::new_epoch};

/// Charged for each message in addition to its bytes: its place in the queue, and the bookkeeping of its text.
const MESSAGE_OVERHEAD: usize = 96;

/// The messages and the position. Points in time are durations since the hub began.
#[derive(Debug)]
pub(super) struct MemoryHistory {
    epoch: Epoch,
    /// The number of the last message.
    offset: u64,
    /// The last messages, oldest first. Their numbers are consecutive and end with `offset`.
    frames: VecDeque<Frame>,
    /// The charge for `frames`.
    bytes: usize,
    retention: Retention,
    /// When the last message was appended.
    appended: Duration,
    /// When the history was last appended to or read.
    used: Duration,
}

impl MemoryHistory {
    /// A history without messages.
    pub(super) fn new(retention: Retention, now: Duration) -> Self {
        Self {
            epoch: new_epoch(),
            offset: 0,
            frames: VecDeque::new(),
            bytes: 0,
            retention,
            appended: now,
            used: now,
        }
    }

    /// The epoch, and the number of the last message.
    pub(super) fn position(&self) -> Position {
        Position {
            epoch: self.epoch.clone(),
            offset: self.offset,
        }
    }

    /// The charge for the messages, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of messages that are kept.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// When the last message was appended.
    pub(super) fn appended(&self) -> Duration {
        self.appended
    }

    /// When the history was last appended to or read.
    pub(super) fn used(&self) -> Duration {
        self.used
    }

    /// When [`MemoryHistory::expire`] will discard something.
    pub(super) fn deadline(&self) -> Duration {
        if self.frames.is_empty() {
            self.position_end()
        } else {
            self.messages_end()
        }
    }

    /// Whether even the position need not be remembered.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.position_end()
    }

    /// Appends a message, and returns it with its number.
    pub(super) fn append(&mut self, frame: &Frame, retention: Retention, now: Duration) -> Frame {
        self.touch(retention, now);
        if self.offset >= OFFSET_MAX {
            self.reset();
        }
        self.appended = self.used;
        self.offset += 1;
        let frame = frame.with_offset(self.offset);
        self.bytes += charge(&frame);
        self.frames.push_back(frame.clone());
        while self.frames.len() > retention.size {
            self.discard_one();
        }
        frame
    }

    /// Reads messages, and the position.
    pub(super) fn read(
        &mut self,
        query: HistoryQuery,
        retention: Retention,
        now: Duration,
    ) -> HistoryPage {
        self.touch(retention, now);
        HistoryPage {
            position: self.position(),
            messages: self.messages(query),
        }
    }

    /// Discards the messages if their time is over, and begins another epoch if that of the position is.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.is_over(now) {
            self.reset();
        } else if now >= self.messages_end() {
            self.clear();
        }
    }

    /// Discards the messages, and begins another epoch.
    pub(super) fn reset(&mut self) {
        self.clear();
        self.epoch = new_epoch();
        self.offset = 0;
    }

    /// Discards the oldest messages, at least `bytes` of them if there are as many. Returns their number.
    pub(super) fn discard(&mut self, bytes: usize) -> usize {
        let before = self.frames.len();
        let left = self.bytes.saturating_sub(bytes);
        while self.bytes > left {
            self.discard_one();
        }
        if self.frames.is_empty() {
            self.clear();
        }
        before - self.frames.len()
    }

    fn touch(&mut self, retention: Retention, now: Duration) {
        self.expire(now);
        self.retention = retention;
        // Of two concurrent callers the later one may come first.
        self.used = self.used.max(now);
    }

    fn messages(&self, query: HistoryQuery) -> Vec<KeptMessage> {
        let oldest = self.offset + 1 - self.frames.len() as u64;
        let end = query.before.unwrap_or(u64::MAX).min(self.offset + 1);
        let begin = end
            .saturating_sub(query.limit as u64)
            .max(query.after.saturating_add(1))
            .max(oldest);
        let message = |offset: u64| {
            let frame = self.frames.get((offset - oldest) as usize)?.clone();
            Some(KeptMessage { offset, frame })
        };
        (begin..end).filter_map(message).collect()
    }

    fn messages_end(&self) -> Duration {
        self.appended.saturating_add(self.retention.time)
    }

    fn position_end(&self) -> Duration {
        self.used.saturating_add(self.retention.position_time())
    }

    fn discard_one(&mut self) {
        let discarded = self.frames.pop_front();
        self.bytes -= discarded.as_ref().map_or(0, charge);
    }

    /// Discards all messages, and frees their queue.
    fn clear(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }
}

fn charge(frame: &Frame) -> usize {
    frame.len() + MESSAGE_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Retention = Retention {
        size: 3,
        time: Duration::from_secs(60),
    };

    const ALL: HistoryQuery = HistoryQuery {
        after: 0,
        before: None,
        limit: usize::MAX,
    };

    fn with_messages(count: u64) -> MemoryHistory {
        let mut history = MemoryHistory::new(RETENTION, Duration::ZERO);
        for _ in 0..count {
            let frame = Frame::from(r#"{"type":"t"}"#.to_owned());
            history.append(&frame, RETENTION, Duration::ZERO);
        }
        history
    }

    fn numbers(history: &MemoryHistory, query: HistoryQuery) -> Vec<u64> {
        let messages = history.messages(query).into_iter();
        messages.map(|message| message.offset).collect()
    }

    #[test]
    fn the_newest_messages_are_kept_and_charged_for() {
        let mut history = with_messages(5);
        assert_eq!(history.position().offset, 5);
        assert_eq!(numbers(&history, ALL), [3, 4, 5]);
        let each = history.bytes() / 3;
        assert!(each > MESSAGE_OVERHEAD);
        assert_eq!(history.discard(each + 1), 2);
        assert_eq!(numbers(&history, ALL), [5]);
        assert_eq!(history.discard(usize::MAX), 1);
        assert_eq!((history.len(), history.bytes()), (0, 0));
        assert_eq!(history.position().offset, 5);
    }

    #[test]
    fn a_query_gets_the_newest_messages_between_its_bounds() {
        let history = with_messages(5);
        for (after, before, limit, expected) in [
            (3, None, 9, vec![4, 5]),
            (5, None, 9, vec![]),
            (u64::MAX, None, 9, vec![]),
            (0, Some(5), 9, vec![3, 4]),
            (0, Some(3), 9, vec![]),
            (0, Some(0), 9, vec![]),
            (0, Some(u64::MAX), 2, vec![4, 5]),
            (3, Some(5), 9, vec![4]),
            (0, None, 1, vec![5]),
            (0, None, 0, vec![]),
        ] {
            let query = HistoryQuery {
                after,
                before,
                limit,
            };
            assert_eq!(numbers(&history, query), expected, "{query:?}");
        }
        assert_eq!(numbers(&with_messages(0), ALL), [] as [u64; 0]);
    }

    #[test]
    fn messages_vanish_before_the_position_does() {
        let mut history = with_messages(2);
        let position = history.position();
        let just_before = RETENTION.time - Duration::from_millis(1);
        let page = history.read(ALL, RETENTION, just_before);
        assert_eq!(page.messages.len(), 2);
        assert_eq!(history.deadline(), RETENTION.time);
        let page = history.read(ALL, RETENTION, RETENTION.time);
        assert_eq!((page.messages.len(), &page.position), (0, &position));
        let end = history.deadline();
        assert_eq!(end, RETENTION.time + RETENTION.position_time());
        assert!(history.is_over(end));
        let page = history.read(ALL, RETENTION, end);
        assert_ne!(page.position.epoch, position.epoch);
        assert_eq!(page.position.offset, 0);
    }

    #[test]
    fn after_the_largest_number_another_epoch_begins() {
        let mut history = with_messages(1);
        let position = history.position();
        history.offset = OFFSET_MAX;
        let frame = Frame::from(r#"{"type":"t"}"#.to_owned());
        history.append(&frame, RETENTION, Duration::ZERO);
        assert_ne!(history.position().epoch, position.epoch);
        assert_eq!(numbers(&history, ALL), [1]);
    }
}

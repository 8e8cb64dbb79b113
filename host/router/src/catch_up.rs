//! The old messages that a member gets when it joins a room with a history. Recovery is complete, or nothing is sent.

use signalbox_broker::{HistoryPage, HistoryQuery};
use signalbox_protocol::{CatchUp, Frame, Position, RecoveryFailure, RoomPosition};

/// Limits on the old messages for one member.
#[derive(Clone, Copy, Debug)]
pub struct ReplayLimits {
    /// The most messages.
    pub messages: usize,
    /// The most bytes.
    pub bytes: usize,
}

/// The part of a history that must be read.
pub(super) fn query(catch_up: Option<&CatchUp>, limits: ReplayLimits) -> HistoryQuery {
    let (after, limit) = match catch_up {
        None => return HistoryQuery::POSITION,
        // One more, to tell too many messages from too old ones.
        Some(CatchUp::Since(since)) => (since.offset, limits.messages.saturating_add(1)),
        Some(CatchUp::Last(last)) => (0, limits.messages.min(*last).max(1)),
    };
    HistoryQuery {
        after,
        before: None,
        limit,
    }
}

/// Chooses the messages to send, from the result of [`query`].
pub(super) fn plan(
    catch_up: Option<&CatchUp>,
    page: HistoryPage,
    limits: ReplayLimits,
) -> (RoomPosition, Vec<Frame>) {
    let chosen = match catch_up {
        None => None,
        Some(CatchUp::Since(since)) => Some(missed(since, &page, limits)),
        Some(CatchUp::Last(last)) => Some(Ok(newest(*last, &page, limits))),
    };
    let (recovery, first) = match chosen {
        None => (None, page.messages.len()),
        Some(Ok(count)) => (Some(Ok(count)), page.messages.len() - count),
        Some(Err(failure)) => (Some(Err(failure)), page.messages.len()),
    };
    let position = end_of(&page);
    let messages = page.messages.into_iter().skip(first);
    let at = RoomPosition { position, recovery };
    (at, messages.map(|kept| kept.frame).collect())
}

/// The place after the last message of `page`.
fn end_of(page: &HistoryPage) -> Position {
    let last = page.messages.last().map_or(0, |kept| kept.offset);
    Position {
        epoch: page.position.epoch.clone(),
        offset: page.position.offset.max(last),
    }
}

/// The number of messages after `since`, which are the last ones of `page`.
fn missed(
    since: &Position,
    page: &HistoryPage,
    limits: ReplayLimits,
) -> Result<usize, RecoveryFailure> {
    let end = end_of(page);
    if since.epoch != end.epoch || since.offset > end.offset {
        return Err(RecoveryFailure::Epoch);
    }
    let count = usize::try_from(end.offset - since.offset).unwrap_or(usize::MAX);
    if count > limits.messages {
        return Err(RecoveryFailure::TooMany);
    }
    let has_all = page.messages.len() >= count
        && page
            .messages
            .iter()
            .rev()
            .map(|kept| kept.offset)
            .take(count)
            .eq((since.offset + 1..=end.offset).rev());
    if !has_all {
        return Err(RecoveryFailure::Expired);
    }
    let first = page.messages.len() - count;
    if bytes_of(page, first) > limits.bytes {
        return Err(RecoveryFailure::TooMany);
    }
    Ok(count)
}

/// The number of last messages of `page` that respect the limits.
fn newest(last: usize, page: &HistoryPage, limits: ReplayLimits) -> usize {
    let most = page.messages.len().min(last).min(limits.messages);
    let fits = |count: &usize| bytes_of(page, page.messages.len() - count) <= limits.bytes;
    (0..=most).rev().find(fits).unwrap_or(0)
}

fn bytes_of(page: &HistoryPage, first: usize) -> usize {
    let messages = page.messages.iter().skip(first);
    messages.map(|kept| kept.frame.len()).sum()
}

#[cfg(test)]
mod tests {
    use signalbox_broker::KeptMessage;
    use signalbox_protocol::Epoch;

    use super::*;

    const LIMITS: ReplayLimits = ReplayLimits {
        messages: 3,
        bytes: 100,
    };

    /// No numbers.
    const NONE: std::ops::RangeInclusive<u64> = std::ops::RangeInclusive::new(1, 0);

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::random(1),
            offset,
        }
    }

    /// A page with these numbers, of a history whose last message has number `end`.
    fn page(numbers: std::ops::RangeInclusive<u64>, end: u64) -> HistoryPage {
        HistoryPage {
            position: at(end),
            messages: numbers
                .map(|offset| KeptMessage {
                    offset,
                    frame: Frame::from(format!("message {offset}")),
                })
                .collect(),
        }
    }

    #[test]
    fn recovery_is_complete_or_refused_with_the_reason() {
        let other = Position {
            epoch: Epoch::random(2),
            offset: 8,
        };
        for (since, page, expected) in [
            (at(7), page(8..=10, 10), Ok(3)),
            (at(9), page(10..=10, 10), Ok(1)),
            (at(10), page(NONE, 10), Ok(0)),
            (at(0), page(1..=2, 2), Ok(2)),
            (at(7), page(9..=10, 10), Err(RecoveryFailure::Expired)),
            (at(7), page(NONE, 10), Err(RecoveryFailure::Expired)),
            (at(6), page(7..=10, 10), Err(RecoveryFailure::TooMany)),
            (at(0), page(NONE, 10), Err(RecoveryFailure::TooMany)),
            (at(11), page(NONE, 10), Err(RecoveryFailure::Epoch)),
            (other, page(9..=10, 10), Err(RecoveryFailure::Epoch)),
        ] {
            let (answer, messages) = plan(Some(&CatchUp::Since(since.clone())), page, LIMITS);
            assert_eq!(answer.recovery, Some(expected), "{since:?}");
            assert_eq!(messages.len(), expected.unwrap_or(0));
            assert!(
                messages.iter().map(Frame::as_str).eq((since.offset + 1..)
                    .map(|offset| format!("message {offset}"))
                    .take(messages.len()))
            );
        }
    }

    #[test]
    fn messages_that_came_during_the_read_are_part_of_it() {
        let (answer, messages) = plan(Some(&CatchUp::Since(at(9))), page(10..=12, 11), LIMITS);
        assert_eq!(answer.position, at(12));
        assert_eq!((answer.recovery, messages.len()), (Some(Ok(3)), 3));
    }

    #[test]
    fn too_many_bytes_are_too_many() {
        let mut page = page(8..=10, 10);
        page.messages[1].frame = Frame::from("x".repeat(90));
        let since = Some(CatchUp::Since(at(7)));
        let (answer, messages) = plan(since.as_ref(), page.clone(), LIMITS);
        assert_eq!(answer.recovery, Some(Err(RecoveryFailure::TooMany)));
        assert!(messages.is_empty());
        // A late comer gets the newest ones that fit.
        let (answer, messages) = plan(Some(&CatchUp::Last(3)), page, LIMITS);
        assert_eq!((answer.recovery, messages.len()), (Some(Ok(2)), 2));
    }

    #[test]
    fn a_late_comer_gets_at_most_as_many_as_the_limit() {
        for (last, expected) in [(0, 0), (2, 2), (1_000_000_000, 3)] {
            let catch_up = CatchUp::Last(last);
            assert!(query(Some(&catch_up), LIMITS).limit <= 3);
            let (answer, messages) = plan(Some(&catch_up), page(8..=10, 10), LIMITS);
            assert_eq!(
                (answer.recovery, messages.len()),
                (Some(Ok(expected)), expected)
            );
            assert_eq!(answer.position, at(10));
        }
    }

    #[test]
    fn a_client_that_asks_for_nothing_learns_its_place() {
        let (answer, messages) = plan(None, page(10..=10, 10), LIMITS);
        let position = at(10);
        assert_eq!(
            answer,
            RoomPosition {
                position,
                recovery: None
            }
        );
        assert!(messages.is_empty());
    }
}

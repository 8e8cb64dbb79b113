use super::*;
use crate::table::tests::connection;

const RETENTION: Retention = Retention {
    size: 100,
    time: Duration::from_secs(60),
};

fn at(offset: u64) -> Position {
    in_epoch(1, offset)
}

fn in_epoch(epoch: u64, offset: u64) -> Position {
    Position {
        epoch: Epoch::random(epoch),
        offset,
    }
}

fn frame(offset: u64) -> Frame {
    Frame::from(format!("message {offset}"))
}

/// A sequence that has delivered everything up to `offset`.
fn sequence_at(offset: u64) -> Sequence {
    let mut sequence = Sequence::new(RETENTION);
    sequence.begin_after(&at(offset));
    sequence
}

fn take(sequence: &mut Sequence, offset: u64) -> KeptArrival {
    sequence.take(&at(offset), &frame(offset))
}

/// The numbers of the messages that are due.
fn due(sequence: &mut Sequence) -> Vec<u64> {
    std::iter::from_fn(|| sequence.next())
        .map(|kept| {
            assert_eq!(kept.frame, frame(kept.offset));
            kept.offset
        })
        .collect()
}

/// A page of the history with these numbers, which ends with number `end`.
fn page(numbers: impl IntoIterator<Item = u64>, end: u64) -> HistoryPage {
    let kept = |offset| KeptMessage {
        offset,
        frame: frame(offset),
    };
    HistoryPage {
        position: at(end),
        messages: numbers.into_iter().map(kept).collect(),
    }
}

fn compare(sequence: &mut Sequence, page: &HistoryPage) -> Comparison {
    let before = sequence.delivered().cloned().unwrap();
    sequence.compare(page, &before)
}

#[test]
fn messages_in_any_order_are_delivered_once_in_the_order_of_their_numbers() {
    let mut sequence = sequence_at(7);
    assert_eq!(take(&mut sequence, 10), KeptArrival::Early);
    assert_eq!(take(&mut sequence, 9), KeptArrival::Early);
    assert!(due(&mut sequence).is_empty() && sequence.is_waiting());
    assert_eq!(take(&mut sequence, 8), KeptArrival::InOrder);
    assert_eq!(due(&mut sequence), [8, 9, 10]);
    for repeated in [8, 10, 9] {
        assert_eq!(take(&mut sequence, repeated), KeptArrival::Repeated);
    }
    assert!(due(&mut sequence).is_empty() && !sequence.is_waiting());
    assert_eq!(sequence.delivered(), Some(&at(10)));
}

#[test]
fn a_gap_is_filled_from_the_history() {
    let mut sequence = sequence_at(7);
    take(&mut sequence, 10);
    let page = page(8..=11, 11);
    assert_eq!(compare(&mut sequence, &page), Comparison::Complete);
    assert_eq!(due(&mut sequence), [8, 9, 10, 11]);
    // The originals come late.
    assert_eq!(take(&mut sequence, 9), KeptArrival::Repeated);
}

#[test]
fn a_gap_that_the_history_does_not_fill_is_reported_and_left_behind() {
    let mut sequence = sequence_at(7);
    take(&mut sequence, 12);
    let missed = Comparison::Missed(RecoveryFailure::Expired, at(11));
    assert_eq!(compare(&mut sequence, &page(10..=11, 11)), missed);
    assert_eq!(due(&mut sequence), [12]);
}

#[test]
fn another_epoch_is_reported_and_followed() {
    let mut sequence = sequence_at(7);
    take(&mut sequence, 9);
    let other = in_epoch(2, 3);
    assert_eq!(sequence.take(&other, &frame(3)), KeptArrival::Contradiction);
    let page = HistoryPage {
        position: other.clone(),
        ..page(1..=3, 3)
    };
    let missed = Comparison::Missed(RecoveryFailure::Epoch, other);
    assert_eq!(compare(&mut sequence, &page), missed);
    assert!(due(&mut sequence).is_empty());
    assert_eq!(
        sequence.take(&in_epoch(2, 4), &frame(4)),
        KeptArrival::InOrder
    );
    assert_eq!(due(&mut sequence), [4]);
    assert_eq!(take(&mut sequence, 8), KeptArrival::Contradiction);
}

#[test]
fn a_number_that_was_given_to_another_message_is_a_contradiction() {
    let mut sequence = sequence_at(7);
    take(&mut sequence, 8);
    assert_eq!(due(&mut sequence), [8]);
    let other = Frame::from("another".to_owned());
    assert_eq!(sequence.take(&at(8), &other), KeptArrival::Contradiction);
    assert!(due(&mut sequence).is_empty());
}

#[test]
fn a_history_that_lost_messages_is_recognised() {
    // Its end is before the last delivered message.
    let mut sequence = sequence_at(7);
    assert_eq!(
        compare(&mut sequence, &page(5..=6, 6)),
        Comparison::RolledBack
    );
    // It has grown again since, with other messages.
    take(&mut sequence, 8);
    assert_eq!(due(&mut sequence), [8]);
    let mut page = page(8..=9, 9);
    page.messages[0].frame = Frame::from("another".to_owned());
    assert_eq!(compare(&mut sequence, &page), Comparison::RolledBack);
}

#[test]
fn messages_that_arrive_during_a_read_are_no_loss() {
    let mut sequence = sequence_at(7);
    let before = sequence.delivered().cloned().unwrap();
    take(&mut sequence, 8);
    assert_eq!(due(&mut sequence), [8]);
    let read = page([], 7);
    assert_eq!(sequence.compare(&read, &before), Comparison::Complete);
    assert_eq!(sequence.delivered(), Some(&at(8)));
}

#[test]
fn messages_wait_until_the_position_is_known() {
    let mut sequence = Sequence::new(RETENTION);
    let gate = CatchUpGate::new(connection("a"), 1 << 20);
    sequence.gates.insert(1, gate);
    assert_eq!(take(&mut sequence, 9), KeptArrival::Early);
    assert_eq!(take(&mut sequence, 8), KeptArrival::Early);
    assert!(due(&mut sequence).is_empty());
    sequence.begin_after(&at(8));
    assert_eq!(due(&mut sequence), [9]);
}

#[test]
fn the_first_message_sets_the_position_of_members_that_were_there_before() {
    let mut sequence = Sequence::new(RETENTION);
    assert_eq!(take(&mut sequence, 41), KeptArrival::InOrder);
    assert_eq!(due(&mut sequence), [41]);
    assert_eq!(take(&mut sequence, 43), KeptArrival::Early);
}

#[test]
fn messages_that_wait_are_bounded_and_read_again() {
    let mut sequence = sequence_at(0);
    let large = Frame::from("x".repeat(1 << 20));
    for offset in 2..10 {
        sequence.take(&at(offset), &large);
    }
    assert!(sequence.early_bytes <= EARLY_BYTES_MAX);
    let kept = |offset| KeptMessage {
        offset,
        frame: frame(offset),
    };
    let page = HistoryPage {
        position: at(9),
        messages: (1..10).map(kept).collect(),
    };
    assert_eq!(compare(&mut sequence, &page), Comparison::Complete);
    assert_eq!(std::iter::from_fn(|| sequence.next()).count(), 9);
}

#[test]
fn only_recent_messages_are_read_again_for_a_comparison() {
    let mut sequence = sequence_at(100);
    assert_eq!(sequence.compare_after(), 100);
    for offset in 101..=200 {
        take(&mut sequence, offset);
        due(&mut sequence);
    }
    assert_eq!(sequence.compare_after(), 200 - REMEMBERED as u64);
}

#[tokio::test(start_paused = true)]
async fn a_history_that_is_quiet_for_long_is_read_before_it_forgets_its_position() {
    let mut sequence = sequence_at(5);
    let half = RETENTION.position_time() / 2;
    let pass = |time| tokio::time::advance(time);
    pass(half).await;
    assert!(!sequence.is_fading());
    pass(Duration::from_secs(1)).await;
    assert!(sequence.is_fading());
    assert_eq!(compare(&mut sequence, &page([], 5)), Comparison::Complete);
    assert!(!sequence.is_fading(), "it was read");
    pass(half).await;
    take(&mut sequence, 6);
    assert_eq!(due(&mut sequence), [6]);
    pass(Duration::from_secs(1)).await;
    assert!(!sequence.is_fading(), "a message was appended");
}

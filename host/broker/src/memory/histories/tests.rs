use std::{collections::BTreeMap, thread};

use super::{queues::Rank, *};

const RETENTION: Retention = Retention {
    size: 100,
    time: Duration::from_secs(60),
};

const ALL: HistoryQuery = HistoryQuery {
    after: 0,
    before: None,
    limit: usize::MAX,
};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn append(histories: &MemoryHistories, room: &str, now: Duration) -> Position {
    // Larger than a position, which has only a share of the limit.
    let payload = "x".repeat(4 * HISTORY_OVERHEAD);
    let frame = Frame::from(format!(r#"{{"type":"t","payload":"{payload}"}}"#));
    let room = HistoryName::Room(room);
    histories.append(room, &frame, RETENTION, now, |_, _| ()).0
}

fn read(histories: &MemoryHistories, room: &str, now: Duration) -> HistoryPage {
    histories.read(HistoryName::Room(room), ALL, RETENTION, now)
}

fn count(histories: &MemoryHistories, room: &str, now: Duration) -> usize {
    read(histories, room, now).messages.len()
}

#[test]
fn the_history_that_was_least_recently_appended_to_loses_its_oldest_messages_first() {
    let histories = MemoryHistories::default();
    for (room, second) in [("old", 1), ("old", 2), ("new", 3), ("new", 4)] {
        append(&histories, room, at(second));
    }
    // Reading does not count.
    assert_eq!(count(&histories, "old", at(5)), 2);
    histories.set_bytes_max(histories.bytes() - 1);
    assert_eq!(histories.evicted(), 1);
    let page = read(&histories, "old", at(5));
    assert_eq!(page.position.offset, 2);
    assert_eq!(page.messages[0].offset, 2);
    assert_eq!(count(&histories, "new", at(5)), 2);
    // The next message takes the place of the last old one, and the one after that of its own predecessor.
    let third = append(&histories, "new", at(6));
    assert_eq!(count(&histories, "old", at(6)), 0);
    append(&histories, "new", at(7));
    assert_eq!(histories.evicted(), 3);
    let page = read(&histories, "new", at(7));
    assert_eq!(page.messages[0].offset, third.offset - 1);
    assert_eq!(page.position.offset, 4);
}

#[test]
fn of_too_many_positions_the_least_recently_used_are_forgotten() {
    let histories = MemoryHistories::default();
    let rooms = ["a", "b", "c"];
    let epochs = rooms.map(|room| append(&histories, room, at(0)).epoch);
    // Without messages, the last use counts.
    let later = at(0) + RETENTION.time;
    for (room, second) in [("b", 1), ("a", 2), ("c", 3)] {
        assert_eq!(count(&histories, room, later + at(second)), 0);
    }
    let two = 2 * (HISTORY_OVERHEAD + 1);
    histories.set_bytes_max(two * POSITIONS_SHARE);
    let kept = rooms.map(|room| histories.position(HistoryName::Room(room), later + at(3)));
    let expected = [Some(&epochs[0]), None, Some(&epochs[2])];
    let kept = kept.each_ref();
    assert_eq!(kept.map(|kept| kept.as_ref().map(|at| &at.epoch)), expected);
    assert_eq!(histories.bytes(), two);
    histories.set_bytes_max(0);
    assert_eq!(histories.bytes(), 0);
    assert!(histories.queues().deadlines.is_empty());
    assert_eq!(append(&histories, "a", later + at(4)).offset, 1);
    assert_eq!(histories.bytes(), 0);
}

#[test]
fn a_sweep_discards_the_messages_and_positions_of_unused_rooms() {
    let histories = MemoryHistories::default();
    append(&histories, "quiet", at(0));
    append(&histories, "busy", at(0));
    let with_messages = histories.bytes();
    // Shortly before its end another message comes, which the queue of deadlines does not show.
    append(&histories, "busy", at(59));
    let end = RETENTION.time + at(1);
    read(&histories, "other", end);
    assert_eq!(count(&histories, "busy", end), 2);
    let cell = histories.rooms.get("quiet").unwrap().clone();
    assert_eq!(cell.state().history.len(), 0);
    assert!(
        histories
            .position(HistoryName::Room("quiet"), end)
            .is_some()
    );
    let end = end + RETENTION.position_time() + at(1);
    read(&histories, "other", end);
    assert_eq!(histories.position(HistoryName::Room("quiet"), end), None);
    assert_eq!(histories.rooms.len(), 1, "only the other one is left");
    assert!(histories.bytes() < with_messages / 2);
    assert_eq!(histories.evicted(), 0);
}

#[test]
fn a_busy_room_moves_in_the_queues_once_a_second() {
    let histories = MemoryHistories::default();
    append(&histories, "r", at(1));
    let ranks = || {
        let queues = histories.queues();
        let ranks = |queue: &BTreeMap<Rank, _>| queue.keys().copied().collect::<Vec<_>>();
        (ranks(&queues.messages), ranks(&queues.deadlines))
    };
    let first = ranks();
    assert_eq!(first, (vec![(1, 0)], vec![(62, 0)]));
    append(&histories, "r", at(1) + Duration::from_millis(999));
    assert_eq!(ranks(), first);
    append(&histories, "r", at(2));
    assert_eq!(ranks(), (vec![(2, 0)], first.1));
}

#[test]
fn the_limit_holds_while_many_rooms_are_appended_to_at_once() {
    let histories = MemoryHistories::default();
    let bytes_max = 16 * HISTORY_OVERHEAD;
    histories.set_bytes_max(bytes_max);
    thread::scope(|scope| {
        for thread in 0..4 {
            let histories = &histories;
            scope.spawn(move || {
                for n in 0..2_000 {
                    let room = ((n + thread) % 7).to_string();
                    append(histories, &room, at(n / 100));
                }
            });
        }
    });
    assert!(histories.bytes() <= bytes_max, "{}", histories.bytes());
    let positions: usize = histories.rooms.iter().map(|cell| cell.charge()).sum();
    assert_eq!(histories.position_bytes.load(Ordering::Relaxed), positions);
    let queues = histories.queues();
    assert_eq!(queues.deadlines.len(), histories.rooms.len());
    let queued = queues.messages.len() + queues.positions.len();
    assert_eq!(queued, histories.rooms.len());
}

#[test]
fn users_and_rooms_of_the_same_name_have_separate_histories_within_one_limit() {
    let histories = MemoryHistories::default();
    let user = HistoryName::User("a");
    let room = append(&histories, "a", at(1));
    let of_room = histories.bytes();
    let page = histories.read(user, ALL, RETENTION, at(2));
    assert_ne!(page.position.epoch, room.epoch);
    assert_eq!((page.position.offset, page.messages.len()), (0, 0));
    assert_eq!(histories.bytes(), of_room + HISTORY_OVERHEAD + 1);
    histories.set_bytes_max(0);
    assert_eq!(histories.bytes(), 0);
    assert_eq!(histories.position(user, at(2)), None);
}

#[test]
fn after_an_unnoticed_hour_messages_have_expired_and_the_position_is_kept() {
    let histories = MemoryHistories::default();
    let first = append(&histories, "r", at(1));
    append(&histories, "r", at(2));
    let hour = at(2) + at(60 * 60);
    let page = read(&histories, "r", hour);
    assert_eq!(
        (&page.position.epoch, page.position.offset),
        (&first.epoch, 2)
    );
    assert!(page.messages.is_empty());
    let third = append(&histories, "r", hour);
    assert_eq!((&third.epoch, third.offset), (&first.epoch, 3));
    let day = hour + RETENTION.position_time();
    let other = append(&histories, "r", day);
    assert_ne!(other.epoch, first.epoch, "the place was forgotten too");
    assert_eq!((other.offset, count(&histories, "r", day)), (1, 1));
}

#[test]
fn an_earlier_time_gives_no_number_twice_and_keeps_nothing_for_longer() {
    let histories = MemoryHistories::default();
    let first = append(&histories, "r", at(100));
    for earlier in [at(99), at(40)] {
        append(&histories, "r", earlier);
    }
    let page = read(&histories, "r", at(41));
    let numbers: Vec<u64> = page.messages.iter().map(|kept| kept.offset).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(page.position.epoch, first.epoch);
    assert_eq!(count(&histories, "r", at(159)), 3);
    assert_eq!(count(&histories, "r", at(160)), 0);
}

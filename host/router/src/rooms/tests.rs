use std::{cell::RefCell, ops::RangeInclusive};

use signalbox_broker::KeptMessage;
use signalbox_protocol::Epoch;

use super::*;
use crate::table::tests::connection;

const RETENTION: Retention = Retention {
    size: 100,
    time: Duration::from_secs(60),
};

/// The frames that members got, with the user.
#[derive(Default)]
struct Pushed(RefCell<Vec<(String, String)>>);

impl Pushed {
    fn run<T>(&self, deliver: impl FnOnce(Push<'_>) -> T) -> T {
        let note = |connection: &Arc<Connection>, frame: Frame| {
            let pushed = (connection.user().to_owned(), frame.as_str().to_owned());
            self.0.borrow_mut().push(pushed);
        };
        deliver(Push {
            message: &|connection, frame| {
                note(connection, frame);
                true
            },
            notice: &note,
        })
    }

    /// The frames that `user` got since the last call.
    fn of(&self, user: &str) -> Vec<String> {
        let mut pushed = self.0.borrow_mut();
        let all = std::mem::take(&mut *pushed);
        let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(to, _)| to == user);
        *pushed = others;
        own.into_iter().map(|(_, text)| text).collect()
    }
}

fn at(offset: u64) -> Position {
    Position {
        epoch: Epoch::random(1),
        offset,
    }
}

fn place(offset: u64) -> RoomPosition {
    RoomPosition {
        position: at(offset),
        recovery: None,
    }
}

fn send(rooms: &RoomTable, pushed: &Pushed, offset: u64) -> KeptDelivery {
    let frame = Frame::from(offset.to_string());
    pushed.run(|push| rooms.deliver_kept("r", &at(offset), &frame, push))
}

fn join(rooms: &RoomTable, connection: &Arc<Connection>) -> Option<Position> {
    let (delivered, is_new) = rooms
        .join_gated(connection, "r", RETENTION, 1 << 20)
        .unwrap();
    assert!(is_new);
    delivered
}

fn texts(numbers: RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[test]
fn a_member_that_catches_up_gets_live_messages_after_the_old_ones() {
    let (rooms, pushed) = (RoomTable::default(), Pushed::default());
    let (ann, bob) = (connection("ann"), connection("bob"));
    assert_eq!(join(&rooms, &ann), None);
    pushed.run(|push| rooms.begin_after("r", &at(0), push));
    pushed.run(|push| rooms.open_gate(&ann, "r", &place(0), push));
    send(&rooms, &pushed, 1);
    assert_eq!(join(&rooms, &bob), Some(at(1)));
    assert_eq!(send(&rooms, &pushed, 2).members, 2);
    send(&rooms, &pushed, 3);
    assert_eq!(pushed.of("ann"), texts(1..=3));
    assert!(pushed.of("bob").is_empty(), "it has not caught up");
    // The history was read up to message 2.
    pushed.run(|push| rooms.open_gate(&bob, "r", &place(2), push));
    send(&rooms, &pushed, 4);
    assert_eq!(pushed.of("bob"), texts(3..=4));
    assert_eq!(pushed.of("ann"), texts(4..=4));
}

#[test]
fn a_member_that_is_ahead_of_its_node_gets_nothing_twice() {
    let (rooms, pushed) = (RoomTable::default(), Pushed::default());
    let ann = connection("ann");
    join(&rooms, &ann);
    pushed.run(|push| rooms.begin_after("r", &at(5), push));
    // It has the messages up to 8 from the history; they are still on their way here.
    pushed.run(|push| rooms.open_gate(&ann, "r", &place(8), push));
    for offset in [6, 8, 7] {
        send(&rooms, &pushed, offset);
    }
    let frame = Frame::from("without a number".to_owned());
    assert_eq!(pushed.run(|push| rooms.deliver("r", &frame, push)), 1);
    assert_eq!(pushed.of("ann"), ["without a number"]);
    for offset in [9, 10] {
        send(&rooms, &pushed, offset);
    }
    assert_eq!(pushed.of("ann"), texts(9..=10));
}

#[test]
fn a_gate_that_is_over_is_noticed() {
    let (rooms, pushed) = (RoomTable::default(), Pushed::default());
    let ann = connection("ann");
    rooms.join_gated(&ann, "r", RETENTION, 10).unwrap();
    pushed.run(|push| rooms.begin_after("r", &at(0), push));
    send(&rooms, &pushed, 1);
    let outcome = pushed.run(|push| rooms.open_gate(&ann, "r", &place(0), push));
    assert_eq!(outcome, (GateOutcome::Over, 0));
    assert_eq!(rooms.restart_gate_if_over(&ann, "r"), Some(at(1)));
    assert_eq!(rooms.restart_gate_if_over(&ann, "r"), None);
    let outcome = pushed.run(|push| rooms.open_gate(&ann, "r", &place(1), push));
    assert_eq!(outcome, (GateOutcome::Open, 0));
}

#[test]
fn a_member_that_leaves_while_it_catches_up_is_gone() {
    let (rooms, pushed) = (RoomTable::default(), Pushed::default());
    let (ann, bob) = (connection("ann"), connection("bob"));
    join(&rooms, &ann);
    join(&rooms, &bob);
    ann.note_left("r");
    rooms.remove(&ann, "r");
    let outcome = pushed.run(|push| rooms.open_gate(&ann, "r", &place(0), push));
    assert_eq!(outcome, (GateOutcome::Gone, 0));
    bob.note_left("r");
    rooms.remove(&bob, "r");
    assert!(!rooms.contains("r"));
}

#[test]
fn members_learn_that_they_missed_messages_and_continue_after_them() {
    let (rooms, pushed) = (RoomTable::default(), Pushed::default());
    let (ann, bob) = (connection("ann"), connection("bob"));
    join(&rooms, &ann);
    pushed.run(|push| rooms.begin_after("r", &at(7), push));
    pushed.run(|push| rooms.open_gate(&ann, "r", &place(7), push));
    join(&rooms, &bob);
    let start = rooms.begin_comparison("r").unwrap();
    let epoch = Epoch::random(2);
    let position = Position { epoch, offset: 3 };
    let page = HistoryPage {
        position: position.clone(),
        messages: vec![KeptMessage {
            offset: 3,
            frame: Frame::from("3".to_owned()),
        }],
    };
    pushed.run(|push| rooms.compare("r", &start, &page, push));
    let notice = r#"{"type":"joined","payload":{"room":"r","epoch":"2","offset":3,"recovered":false,"reason":"epoch"}}"#;
    assert_eq!(pushed.of("ann"), [notice]);
    // A member that is still reading learns it when it is done.
    assert!(pushed.of("bob").is_empty());
    pushed.run(|push| rooms.open_gate(&bob, "r", &place(7), push));
    assert_eq!(pushed.of("bob"), [notice]);
    let next = Position {
        offset: 4,
        ..position
    };
    let frame = Frame::from("4".to_owned());
    pushed.run(|push| rooms.deliver_kept("r", &next, &frame, push));
    assert_eq!(
        (pushed.of("ann"), pushed.of("bob")),
        (texts(4..=4), texts(4..=4))
    );
}

#[test]
fn a_room_that_gets_a_history_while_it_has_members_keeps_its_order() {
    let (rooms, pushed) = (RoomTable::default(), Pushed::default());
    let ann = connection("ann");
    assert!(rooms.join(&ann, "r"));
    rooms.follow("r", RETENTION);
    for offset in [5, 7, 6] {
        send(&rooms, &pushed, offset);
    }
    assert_eq!(pushed.of("ann"), texts(5..=7));
}

#[test]
fn a_history_that_cannot_be_read_keeps_no_message_back() {
    let (rooms, pushed) = (RoomTable::default(), Pushed::default());
    let (ann, bob) = (connection("ann"), connection("bob"));
    rooms.join(&ann, "r");
    join(&rooms, &bob);
    send(&rooms, &pushed, 5);
    send(&rooms, &pushed, 6);
    assert!(pushed.of("ann").is_empty());
    pushed.run(|push| rooms.give_up_gate(&bob, "r", push));
    assert_eq!(
        (pushed.of("ann"), pushed.of("bob")),
        (texts(5..=6), texts(5..=6))
    );
    send(&rooms, &pushed, 7);
    assert_eq!(pushed.of("bob"), texts(7..=7));
}

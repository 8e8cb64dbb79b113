use signalbox_protocol::{ClientInfo, CloseCode};

use super::*;

pub(crate) fn table() -> Arc<LocalTable> {
    Arc::new(LocalTable::new(1 << 20, Arc::default()))
}

pub(crate) fn connection(user: &str) -> Arc<Connection> {
    let client = ClientInfo {
        connection: format!("c-{user}"),
        user: user.to_owned(),
        claims: "{}".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        connected_at_ms: 0,
    };
    Arc::new(Connection::new(client, true))
}

fn frame() -> Frame {
    Frame::from("x".to_owned())
}

#[test]
fn messages_waiting_at_the_end_of_a_drain_are_counted() {
    let table = table();
    let one = connection("a");
    table.insert(one.clone());
    table.push(&one, frame());
    assert_eq!(table.deliver(Target::User("a"), &frame()), 1);
    assert!(table.push_message(&one, frame()));
    table.cut_off();
    table.detach(&one, DropReason::ConnectionLost);
    let dropped = |reason| table.metrics.messages_dropped.of(reason).get();
    assert_eq!(table.metrics.messages_delivered.get(), 2);
    assert_eq!(dropped(DropReason::CutOff), 2);
    assert!(!table.push_message(&one, frame()));
    assert_eq!(dropped(DropReason::Closing), 1);
    assert_eq!(dropped(DropReason::ConnectionLost), 0);
}

#[test]
fn a_user_with_two_connections_gets_a_message_on_both_until_the_last_is_gone() {
    let table = table();
    let (one, two) = (connection("a"), connection("a"));
    table.insert(one.clone());
    table.insert(two.clone());
    assert_eq!(table.deliver(Target::User("a"), &frame()), 2);
    table.remove(&one);
    assert!(table.holds_user("a"));
    assert_eq!(table.deliver(Target::User("a"), &frame()), 1);
    table.remove(&two);
    assert!(!table.holds_user("a"));
}

#[test]
fn only_the_named_users_connections_are_counted_and_closed() {
    let table = table();
    let (one, two, other) = (connection("a"), connection("a"), connection("b"));
    for connection in [&one, &two, &other] {
        table.insert(connection.clone());
    }
    let answer = |user: &str, request: &UserRequest| {
        let answer = table.carry_out(user, request).now_or_never();
        answer.expect("it is carried out at once")
    };
    let count = |number| UserAnswer::Connections(number);
    assert_eq!(answer("a", &UserRequest::Count), count(2));
    assert_eq!(answer("nobody", &UserRequest::Count), count(0));
    let only = UserRequest::DisconnectOne {
        connection: "c-b".to_owned(),
        code: CloseCode::KICKED,
        reason: String::new(),
    };
    assert_eq!(answer("a", &only), count(0), "another user's");
    assert!(!other.outbox().is_closing());
    let listed = |open: &[&Arc<Connection>]| {
        UserAnswer::Listed(open.iter().map(|open| open.report()).collect())
    };
    assert_eq!(answer("a", &UserRequest::List), listed(&[&one, &two]));
    one.outbox().close(CloseCode::DRAIN, "");
    assert_eq!(answer("a", &UserRequest::List), listed(&[&two]));
    let disconnect = UserRequest::Disconnect {
        code: CloseCode::KICKED,
        reason: "enough".to_owned(),
    };
    assert_eq!(answer("a", &disconnect), count(1), "one goes already");
    assert_eq!(answer("a", &UserRequest::Count), count(0));
    assert!(two.outbox().is_closing() && !other.outbox().is_closing());
}

#[test]
fn members_join_once_and_a_room_goes_with_its_last_member() {
    let table = table();
    let (one, two) = (connection("a"), connection("b"));
    assert!(
        table.rooms.join(&one, "r") && !table.rooms.join(&one, "r") && table.rooms.join(&two, "r")
    );
    assert_eq!(table.deliver(Target::Room("r"), &frame()), 2);
    assert!(table.leave(&one, "r") && !table.leave(&one, "r"));
    assert_eq!(table.deliver(Target::Room("r"), &frame()), 1);
    assert_eq!(table.remove(&two).len(), 1);
    assert!(!table.holds_room("r"));
}

#[test]
fn a_connection_that_is_gone_cannot_join() {
    let table = table();
    let one = connection("a");
    table.remove(&one);
    assert!(!table.rooms.join(&one, "r"));
    assert!(!table.holds_room("r"));
}

#[test]
fn a_full_outbox_is_counted_and_costs_the_others_nothing() {
    let table = table();
    let (slow, well) = (connection("a"), connection("b"));
    table.insert(slow.clone());
    table.insert(well);
    table.set_outbox_bytes_max(100);
    assert_eq!(table.deliver(Target::User("a"), &frame()), 1);
    assert_eq!(table.deliver(Target::User("a"), &frame()), 0);
    assert!(slow.outbox().is_closing());
    assert_eq!(table.deliver(Target::User("b"), &frame()), 1);
    assert_eq!(
        table
            .metrics
            .messages_dropped
            .of(DropReason::SlowConsumer)
            .get(),
        2,
        "the one that was taken and the one that was not"
    );
}

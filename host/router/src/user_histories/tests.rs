use std::{io, sync::Mutex};

use signalbox_broker::{LocalNode as _, Target};
use signalbox_protocol::{ClientInfo, CloseCode, Epoch, Frame, Position};

use super::*;
use crate::{
    LocalTable, SocketSink,
    table::tests::{connection, table},
};

const RETENTION: Retention = Retention {
    size: 10,
    time: Duration::from_secs(60),
};

/// A connection of `user` that does not speak `signalbox.v1`.
fn old_connection(user: &str) -> Arc<Connection> {
    let client = ClientInfo::clone(connection(user).client());
    Arc::new(Connection::new(client, false))
}

fn send(table: &LocalTable, offset: u64) -> usize {
    let at = Position {
        epoch: Epoch::random(1),
        offset,
    };
    let frame = Frame::from(format!(r#"{{"n":{offset}}}"#)).with_offset(offset);
    table.deliver_kept(HistoryName::User("a"), &at, &frame)
}

/// Takes the frames of an outbox, all of which are shorter than 126 bytes.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<String>>>);

impl SocketSink for Taken {
    fn try_write(&self, mut first: &[u8], _: &[u8]) -> io::Result<usize> {
        let taken = first.len();
        while let [_, len, after @ ..] = first {
            let (text, next) = after.split_at(usize::from(*len));
            let text = String::from_utf8_lossy(text).into_owned();
            self.0.lock().unwrap().push(text);
            first = next;
        }
        Ok(taken)
    }
}

/// The frames that waited for `connection`.
fn waiting(connection: &Connection) -> Vec<String> {
    let taken = Taken::default();
    connection.outbox().attach(Box::new(taken.clone()));
    connection.outbox().flush();
    taken.0.lock().unwrap().clone()
}

#[test]
fn only_clients_of_the_subprotocol_get_the_number() {
    for is_followed in [false, true] {
        let table = table();
        table.user_histories.set(is_followed.then_some(RETENTION));
        let (new, old) = (connection("a"), old_connection("a"));
        table.insert(new.clone());
        table.insert(old.clone());
        assert_eq!(send(&table, 7), 2);
        assert_eq!(waiting(&new), [r#"{"n":7,"offset":7}"#], "{is_followed}");
        assert_eq!(waiting(&old), [r#"{"n":7}"#], "{is_followed}");
    }
}

#[test]
fn all_devices_get_messages_in_the_order_of_their_numbers_and_once() {
    let table = table();
    table.user_histories.set(Some(RETENTION));
    let devices = [connection("a"), connection("a")];
    for device in &devices {
        table.insert(device.clone());
    }
    for offset in [1, 3, 2, 3, 5, 4] {
        send(&table, offset);
    }
    let expected: Vec<String> = (1..=5)
        .map(|n| format!(r#"{{"n":{n},"offset":{n}}}"#))
        .collect();
    for device in &devices {
        assert_eq!(waiting(device), expected);
    }
}

#[test]
fn a_user_whose_connections_are_closing_is_not_reached() {
    let table = table();
    table.user_histories.set(Some(RETENTION));
    let (one, two) = (connection("a"), connection("a"));
    table.insert(one.clone());
    table.insert(two.clone());
    one.outbox().close(CloseCode::DRAIN, "");
    assert_eq!(send(&table, 1), 1);
    two.outbox().close(CloseCode::DRAIN, "");
    assert_eq!(send(&table, 2), 0);
    for device in [&one, &two] {
        table.remove(device);
    }
    assert_eq!(send(&table, 3), 0);
    assert!(!table.user_histories.rooms.contains("a"), "nothing remains");
}

#[test]
fn histories_that_are_switched_off_stay_in_order_and_leave_other_messages_alone() {
    let table = table();
    table.user_histories.set(Some(RETENTION));
    assert_eq!(table.user_histories.retention(), Some(RETENTION));
    let early = connection("a");
    table.insert(early.clone());
    table.user_histories.set(None);
    assert_eq!(table.user_histories.retention(), None);
    let late = connection("a");
    table.insert(late.clone());
    // Another node still keeps the messages.
    send(&table, 1);
    assert_eq!(
        table.deliver(Target::User("a"), &Frame::from("plain".to_owned())),
        2
    );
    for device in [&early, &late] {
        assert_eq!(waiting(device), [r#"{"n":1,"offset":1}"#, "plain"]);
    }
}

#[test]
fn a_connection_that_is_gone_is_not_followed() {
    let table = table();
    table.user_histories.set(Some(RETENTION));
    let gone = connection("a");
    table.insert(gone.clone());
    table.remove(&gone);
    table.user_histories.admit(&gone);
    assert!(!table.user_histories.rooms.contains("a"));
}

//! The names of clients, and their rooms.

use std::ops::Range;

use serde_json::{Map, Value, json};

/// The name of a room, which keeps its messages.
pub(super) fn room(number: usize) -> String {
    format!("history:{number}")
}

/// The command that opens the clients of an SDK with these numbers. Each is in one or two of `rooms` rooms.
pub(super) fn open(
    sdk: &str,
    numbers: Range<usize>,
    rooms: usize,
    url: &str,
) -> Map<String, Value> {
    let client = |number| {
        let rooms = rooms_of(number, rooms).into_iter().map(room);
        json!({"user": format!("{sdk}-{number}"), "rooms": rooms.collect::<Vec<_>>()})
    };
    let clients: Vec<_> = numbers.map(client).collect();
    Map::from_iter([
        ("do".to_owned(), "open".into()),
        ("url".to_owned(), url.into()),
        ("clients".to_owned(), clients.into()),
    ])
}

fn rooms_of(client: usize, rooms: usize) -> Vec<usize> {
    let first = client % rooms;
    let second = (first + 1 + client / rooms) % rooms;
    if client.is_multiple_of(2) || first == second {
        vec![first]
    } else {
        vec![first, second]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_in_one_or_two_rooms_and_each_room_has_clients() {
        let all: Vec<_> = (0..300).map(|client| rooms_of(client, 12)).collect();
        assert!(
            all.iter()
                .all(|rooms| rooms.len() == 1 || rooms[0] != rooms[1])
        );
        assert!((0..12).all(|room| all.iter().any(|rooms| rooms.contains(&room))));
        assert!(all.iter().any(|rooms| rooms.len() == 2));
    }
}

//! Values and rooms for the tests of a plugin.
//!
//! ```
//! use signalbox_plugin::{store, testing};
//!
//! testing::set_client(Some(testing::client("ann")));
//! let votes = store::increment("votes", 1, None)?;
//! assert_eq!(votes, 1, "each test, which is a thread, begins with an empty store");
//! # Ok::<(), signalbox_plugin::store::StoreError>(())
//! ```

#[cfg(not(target_arch = "wasm32"))]
use crate::room_state::{KeptMessage, Member};
use crate::{Client, Destination, Message};

/// A message from the user `ann` to the user `bob`, with `payload` as its JSON text. Change fields as a test needs
/// them.
pub fn message(event_type: &str, payload: &str) -> Message {
    Message {
        id: "m-1".to_owned(),
        event_type: event_type.to_owned(),
        sender: "ann".to_owned(),
        destination: Some(Destination::User("bob".to_owned())),
        payload: payload.to_owned(),
        timestamp: 1_700_000_000_000,
    }
}

/// A connection of `user`, without a token.
pub fn client(user: &str) -> Client {
    Client {
        connection: "c-1".to_owned(),
        user: user.to_owned(),
        claims: "{}".to_owned(),
        address: "127.0.0.1:50000".to_owned(),
        connected_at: 1_700_000_000_000,
    }
}

/// Sets the client that [`context::current_client`](crate::context::current_client) returns in this test from now on.
#[cfg(not(target_arch = "wasm32"))]
pub fn set_client(client: Option<Client>) {
    crate::native::set_client(client);
}

/// A room, as [`room_state`](crate::room_state) returns it.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// The number of connections.
    pub count: u32,
    /// The users, ordered by ID; `None` if the room has no presence.
    pub members: Option<Vec<Member>>,
    /// The messages, the oldest first; `None` if the room has no history.
    pub history: Option<Vec<KeptMessage>>,
}

/// Sets the room that [`room_state`](crate::room_state) returns for `name` in this test from now on. Other rooms are empty,
/// without presence and history.
///
/// ```
/// use signalbox_plugin::{room_state::{self, RoomError}, testing::{self, Room}};
///
/// testing::set_room("lobby", Room { count: 3, ..Room::default() });
/// assert_eq!(room_state::count("lobby"), Ok(3));
/// assert_eq!(room_state::members("lobby").unwrap_err(), RoomError::SwitchedOff);
/// ```
#[cfg(not(target_arch = "wasm32"))]
pub fn set_room(name: &str, room: Room) {
    crate::native::set_room(name, room);
}

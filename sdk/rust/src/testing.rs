//! Values for the tests of a plugin.
//!
//! ```
//! use signalbox_plugin::{store, testing};
//!
//! testing::set_client(Some(testing::client("ann")));
//! let votes = store::increment("votes", 1, None)?;
//! assert_eq!(votes, 1, "each test, which is a thread, begins with an empty store");
//! # Ok::<(), signalbox_plugin::store::StoreError>(())
//! ```

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

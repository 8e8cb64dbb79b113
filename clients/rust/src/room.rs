//! The handle of a room.

use crate::client::Client;
use crate::error::Error;
use crate::events::{Answer, Page, Presence};
use crate::options::JoinOptions;
use crate::outgoing::Outgoing;

/// A room: its calls and its users. Its events are among those of the client.
#[derive(Clone, Debug)]
pub struct Room {
    client: Client,
    name: String,
}

impl Room {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Joins, see [`Client::join`]. Returns whether missed messages were recovered; None if the join asked for none.
    /// Joining again changes the options.
    ///
    /// # Errors
    /// As for [`Client::join`].
    pub async fn join(&self, options: JoinOptions) -> Result<Option<bool>, Error> {
        self.client.join_room(&self.name, options).await
    }

    /// Leaves. Returns when the server has answered, or the connection is gone.
    ///
    /// # Errors
    /// Fails with the server's error. The client does not join the room again in any case.
    pub async fn leave(&self) -> Result<(), Error> {
        self.client.leave_room(&self.name).await
    }

    /// Sends a message to the room, see [`Client::send`].
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn send(
        &self,
        event_type: &str,
        payload: impl Into<serde_json::Value>,
    ) -> Result<Answer, Error> {
        let message = Outgoing::new(event_type).payload(payload).room(&self.name);
        self.client.send(message).await
    }

    /// Reads messages of the history of the room, of which the client must be a member: the newest ones, or those before an
    /// offset; at most `limit`, or as many as the server gives.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn history(&self, before: Option<u64>, limit: Option<u32>) -> Result<Page, Error> {
        self.client.history(&self.name, before, limit).await
    }

    /// Returns the users, if the room was joined with [`JoinOptions::presence`].
    pub async fn presence(&self) -> Presence {
        self.client.presence(&self.name).await
    }
}

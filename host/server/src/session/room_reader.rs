//! The members and the history of rooms, for backends and plugins.

use std::{sync::Arc, time::UNIX_EPOCH};

use futures_util::{FutureExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::value::RawValue;
use signalbox_broker::BrokerError;
use signalbox_plugin_runtime::{RoomMember, RoomMessage, RoomState, RoomStateError};
use signalbox_protocol::{
    Frame, HistoryExcerpt, HistoryRequest, OFFSET_MAX, timestamp::unix_millis,
};
use signalbox_router::{MemberReport, RoomCount, Router};
use tracing::debug;

use super::ConfigHandle;

/// Reads rooms of the whole cluster, as their rules allow.
#[derive(Clone)]
pub struct RoomReader {
    router: Arc<Router>,
    live: Arc<ConfigHandle>,
}

/// The users in a room, as many as are listed.
#[derive(Debug)]
pub struct ListedMembers {
    /// All users.
    all: Arc<[MemberReport]>,
    /// The most that are listed.
    listed_max: usize,
}

impl ListedMembers {
    /// The number of all users.
    pub fn total(&self) -> usize {
        self.all.len()
    }

    /// The users that are listed, in the order of their IDs.
    pub fn listed(&self) -> impl Iterator<Item = &MemberReport> {
        self.all.iter().take(self.listed_max)
    }
}

impl RoomReader {
    /// Reads what `router` knows, by the rules in `live`.
    pub fn new(router: Arc<Router>, live: Arc<ConfigHandle>) -> Self {
        Self { router, live }
    }

    /// Counts the members of `room`.
    pub async fn count(&self, room: &str) -> RoomCount {
        self.router.count_members(room).await
    }

    /// The users in `room`; `None` if it has no presence.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if they cannot be read.
    pub async fn members(&self, room: &str) -> Result<Option<ListedMembers>, BrokerError> {
        let listed_max = self.live.load().presence.members_max;
        let members = self.router.members(room).await?;
        Ok(members.map(|all| ListedMembers { all, listed_max }))
    }

    /// Messages of the history of `room`, as many as the limits for clients allow; `None` if it has no history. One that nothing
    /// was sent to, and that nobody joined, is not created.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if it cannot be read.
    pub async fn history(
        &self,
        room: &str,
        request: HistoryRequest,
    ) -> Result<Option<HistoryExcerpt>, BrokerError> {
        let Some(retention) = self.live.load().retention(room) else {
            return Ok(None);
        };
        let limits = self.live.load().replay_limits();
        let read = self.router.find_history(room, request, retention, limits);
        read.await.map(Some)
    }
}

impl RoomState for RoomReader {
    fn count<'a>(&'a self, room: &'a str) -> BoxFuture<'a, Result<u32, RoomStateError>> {
        let count = self.count(room);
        async move { total(count.await) }.boxed()
    }

    fn members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Vec<RoomMember>, RoomStateError>> {
        async move {
            let members = self.members(room).await.map_err(|error| unread(&error))?;
            let members = members.ok_or(RoomStateError::SwitchedOff)?;
            Ok(members.listed().map(member).collect())
        }
        .boxed()
    }

    fn history<'a>(
        &'a self,
        room: &'a str,
        before: Option<u64>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<RoomMessage>, RoomStateError>> {
        let request = HistoryRequest {
            // No message has a greater number.
            before: before.filter(|before| *before <= OFFSET_MAX),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        };
        async move {
            let excerpt = self.history(room, request).await;
            let excerpt = excerpt.map_err(|error| unread(&error))?;
            let excerpt = excerpt.ok_or(RoomStateError::SwitchedOff)?;
            let messages = excerpt.messages.iter().map(message);
            messages
                .collect::<Option<_>>()
                .ok_or(RoomStateError::Unavailable)
        }
        .boxed()
    }
}

/// The number of members on all nodes. A number without those of some node would be wrong.
fn total(counted: RoomCount) -> Result<u32, RoomStateError> {
    let elsewhere = counted.elsewhere.map_err(|error| unread(&error))?;
    let mut total = counted.here;
    for report in elsewhere {
        total += report.members.ok_or(RoomStateError::Unavailable)?;
    }
    Ok(u32::try_from(total).unwrap_or(u32::MAX))
}

fn unread(error: &BrokerError) -> RoomStateError {
    debug!(%error, "a plugin did not get the state of a room");
    RoomStateError::Unavailable
}

fn member(report: &MemberReport) -> RoomMember {
    RoomMember {
        user: report.user.to_string(),
        connections: u32::try_from(report.connections).unwrap_or(u32::MAX),
        info: report.info.as_ref().map(|info| info.as_str().to_owned()),
    }
}

/// A message, as plugins get it; `None` if its frame is not one that this server writes.
fn message(frame: &Frame) -> Option<RoomMessage> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields<'f> {
        #[serde(rename = "type")]
        event_type: String,
        #[serde(borrow)]
        payload: &'f RawValue,
        sender_id: String,
        timestamp: String,
        offset: u64,
    }
    let fields: Fields<'_> = serde_json::from_str(frame.as_str()).ok()?;
    // Backends choose the time of messages that they publish in Redis: it may be any text.
    let timestamp = humantime::parse_rfc3339(&fields.timestamp).unwrap_or(UNIX_EPOCH);
    Some(RoomMessage {
        offset: fields.offset,
        event_type: fields.event_type,
        sender: fields.sender_id,
        payload: fields.payload.get().to_owned(),
        timestamp_ms: unix_millis(timestamp),
    })
}

#[cfg(test)]
mod tests {
    use signalbox_router::RoomReport;

    use super::*;

    #[test]
    fn a_kept_message_keeps_the_bytes_of_its_payload() {
        let read = |text: &str| message(&Frame::from(text.to_owned()));
        let text = r#"{"type":"chat","payload":{ "n": 1.10 },"receiverID":"","senderId":"ä\"","timestamp":"2023-11-14T22:13:20.123456Z","room":"r","offset":7}"#;
        let expected = RoomMessage {
            offset: 7,
            event_type: "chat".to_owned(),
            sender: "ä\"".to_owned(),
            payload: r#"{ "n": 1.10 }"#.to_owned(),
            timestamp_ms: 1_700_000_000_123,
        };
        assert_eq!(read(text), Some(expected));
        let odd = text.replace("2023-11-14T22:13:20.123456Z", "yesterday");
        assert_eq!(read(&odd).map(|message| message.timestamp_ms), Some(0));
        assert_eq!(read(r#"{"type":"chat"}"#), None);
    }

    #[test]
    fn a_count_without_the_members_of_some_node_is_no_count() {
        let counted = |members| RoomCount {
            here: 2,
            elsewhere: Ok(vec![RoomReport {
                node: "n".to_owned(),
                members,
            }]),
        };
        assert_eq!(total(counted(Some(3))), Ok(5));
        assert_eq!(total(counted(None)), Err(RoomStateError::Unavailable));
    }
}

//! The payloads of `join` and `history`, and the answers about a room's history.

use serde::{Deserialize, Serialize, ser::SerializeStruct as _};

use super::{Frame, OFFSET_MAX, Position};

/// The messages of a `history` frame that names no `limit`.
const HISTORY_LIMIT_DEFAULT: usize = 50;

/// The payload of a `join`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinRequest {
    /// The messages that the client wants before live ones.
    pub catch_up: Option<CatchUp>,
    /// Whether the client wants to know who is in the room.
    pub presence: bool,
    /// The token for the room, if there is one.
    pub token: Option<String>,
}

/// The messages of a history that a client wants when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// All messages after this position.
    Since(Position),
    /// The last messages, at most so many.
    Last(usize),
}

/// The payload of a `history` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRequest {
    /// Only messages with a smaller number; `None`: no limit.
    pub before: Option<u64>,
    /// The most messages, at least 1.
    pub limit: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JoinFields {
    since: Option<Position>,
    last: Option<u64>,
    presence: Option<bool>,
    token: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HistoryFields {
    before: Option<u64>,
    limit: Option<u64>,
}

impl JoinRequest {
    /// Parses the JSON text `payload`. Unknown fields are ignored.
    ///
    /// # Errors
    /// Returns the reason, for people, if it is neither `null` nor an object with well-formed fields.
    pub fn parse(payload: &str) -> Result<Self, &'static str> {
        let JoinFields {
            since,
            last,
            presence,
            token,
        } = read(
            payload,
            "`payload.since` is {\"epoch\":\"…\",\"offset\":N}, `payload.last` a whole number, `payload.presence` true or false, `payload.token` a string",
        )?;
        let catch_up = match (since, last) {
            (Some(_), Some(_)) => return Err("name `since` or `last`, not both"),
            (Some(since), None) if since.offset > OFFSET_MAX => {
                return Err("`payload.since.offset` is greater than 2^53 - 1");
            }
            (Some(since), None) => Some(CatchUp::Since(since)),
            (None, Some(last)) => Some(CatchUp::Last(clamp(last))),
            (None, None) => None,
        };
        Ok(Self {
            catch_up,
            presence: presence.unwrap_or(false),
            token,
        })
    }
}

impl HistoryRequest {
    /// Parses the JSON text `payload`. Unknown fields are ignored.
    ///
    /// # Errors
    /// Returns the reason, for people, if it is neither `null` nor an object with well-formed fields.
    pub fn parse(payload: &str) -> Result<Self, &'static str> {
        let HistoryFields { before, limit } = read(
            payload,
            "`payload.before` and `payload.limit` are whole numbers",
        )?;
        Self::new(before, limit)
    }

    /// A request for messages with a smaller number than `before`. Without a `limit`, it is for 50.
    ///
    /// # Errors
    /// Returns the reason, for people, if a number is out of range.
    pub fn new(before: Option<u64>, limit: Option<u64>) -> Result<Self, &'static str> {
        match (before, limit) {
            (Some(before), _) if before > OFFSET_MAX => Err("`before` is greater than 2^53 - 1"),
            (_, Some(0)) => Err("`limit` is at least 1"),
            (before, limit) => Ok(Self {
                before,
                limit: limit.map_or(HISTORY_LIMIT_DEFAULT, clamp),
            }),
        }
    }
}

fn read<'a, T: Deserialize<'a> + Default>(
    payload: &'a str,
    wrong: &'static str,
) -> Result<T, &'static str> {
    // Serde would take an array for the fields in their order.
    if payload.starts_with('[') {
        return Err(wrong);
    }
    let fields: Result<Option<T>, _> = serde_json::from_str(payload);
    fields.map(Option::unwrap_or_default).map_err(|_| wrong)
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Why missed messages are not sent. The client must reload its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryFailure {
    /// The position is not one of this history: it was lost or reset since.
    Epoch,
    /// Some of the messages are no longer kept.
    Expired,
    /// There are more than `limits.history_replay_max`, or more bytes than the client's queue takes.
    TooMany,
}

impl RecoveryFailure {
    /// Every reason, for metrics.
    pub const ALL: [Self; 3] = [Self::Epoch, Self::Expired, Self::TooMany];

    /// The reason as text, as used in frames.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Expired => "expired",
            Self::TooMany => "too_many",
        }
    }
}

/// A client's place in the history of a room: live messages continue after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPosition {
    /// The place.
    pub position: Position,
    /// The number of old messages that come before live ones, or why none come; `None` if the client did not ask for any.
    pub recovery: Option<Result<usize, RecoveryFailure>>,
}

impl Serialize for RoomPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("RoomPosition", 4)?;
        fields.serialize_field("epoch", &self.position.epoch)?;
        fields.serialize_field("offset", &self.position.offset)?;
        match self.recovery {
            None => {}
            Some(Ok(count)) => {
                fields.serialize_field("recovered", &true)?;
                fields.serialize_field("count", &count)?;
            }
            Some(Err(failure)) => {
                fields.serialize_field("recovered", &false)?;
                fields.serialize_field("reason", failure.as_str())?;
            }
        }
        fields.end()
    }
}

/// Messages that are read back. The default is that of a history that does not exist.
#[derive(Clone, Debug, Default)]
pub struct HistoryExcerpt {
    /// The end of the history; `None` if there is no history.
    pub position: Option<Position>,
    /// The messages, oldest first.
    pub messages: Vec<Frame>,
    /// Whether older messages are kept, so that the client can ask again.
    pub has_older: bool,
}

impl HistoryExcerpt {
    /// Encodes it as a JSON object. Without a history it has no epoch, and the offset is 0.
    pub fn encode(&self) -> String {
        let frames: usize = self.messages.iter().map(|frame| frame.len() + 1).sum();
        let mut text = String::with_capacity(96 + frames);
        text.push('{');
        if let Some(position) = &self.position {
            text.push_str(r#""epoch":""#);
            text.push_str(position.epoch.as_str());
            text.push_str(r#"","#);
        }
        let offset = self.position.as_ref().map_or(0, |end| end.offset);
        text.push_str(r#""offset":"#);
        text.push_str(&offset.to_string());
        text.push_str(r#","hasOlder":"#);
        text.push_str(if self.has_older { "true" } else { "false" });
        text.push_str(r#","messages":["#);
        for (index, frame) in self.messages.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(frame.as_str());
        }
        text.push_str("]}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::parse("k3v9").unwrap(),
            offset,
        }
    }

    #[test]
    fn a_join_names_a_position_or_a_number_of_messages_or_neither() {
        let since = r#"{"since":{"epoch":"k3v9","offset":1039},"other":[]}"#;
        for (payload, catch_up) in [
            ("null", None),
            ("{}", None),
            (r#"{"since":null}"#, None),
            (since, Some(CatchUp::Since(at(1039)))),
            (r#"{"last":20}"#, Some(CatchUp::Last(20))),
            (r#"{"last":1000000000}"#, Some(CatchUp::Last(1_000_000_000))),
        ] {
            let request = JoinRequest {
                catch_up,
                ..JoinRequest::default()
            };
            assert_eq!(JoinRequest::parse(payload), Ok(request));
        }
    }

    #[test]
    fn a_join_asks_for_presence_with_true_only() {
        for (payload, presence) in [
            (r#"{"presence":true}"#, true),
            (r#"{"presence":true,"last":1}"#, true),
            (r#"{"presence":false}"#, false),
            (r#"{"presence":null}"#, false),
        ] {
            assert_eq!(JoinRequest::parse(payload).unwrap().presence, presence);
        }
        for payload in [r#"{"presence":1}"#, r#"{"presence":"true"}"#] {
            assert!(JoinRequest::parse(payload).is_err(), "{payload}");
        }
    }

    #[test]
    fn a_join_has_a_token_that_is_a_string_or_none() {
        for (payload, token) in [
            (r#"{"token":"a.b.c","last":1}"#, Some("a.b.c")),
            (r#"{"token":null}"#, None),
            (r#"{"presence":true}"#, None),
        ] {
            let request = JoinRequest::parse(payload).unwrap();
            assert_eq!(request.token.as_deref(), token, "{payload}");
        }
        for payload in [r#"{"token":7}"#, r#"{"token":["a"]}"#] {
            assert!(JoinRequest::parse(payload).is_err(), "{payload}");
        }
    }

    #[test]
    fn a_malformed_position_is_refused() {
        for payload in [
            "[]",
            "7",
            r#""x""#,
            r#"{"since":7}"#,
            r#"{"since":{"epoch":"k3v9"}}"#,
            r#"{"since":{"epoch":"a b","offset":1}}"#,
            r#"{"since":{"epoch":"k","offset":-1}}"#,
            r#"{"since":{"epoch":"k","offset":1.5}}"#,
            r#"{"since":{"epoch":"k","offset":9007199254740992}}"#,
            r#"{"since":{"epoch":"k","offset":1},"last":1}"#,
            r#"{"last":-1}"#,
            r#"{"last":"1"}"#,
        ] {
            assert!(JoinRequest::parse(payload).is_err(), "{payload}");
        }
        let largest = r#"{"since":{"epoch":"k3v9","offset":9007199254740991}}"#;
        assert!(JoinRequest::parse(largest).is_ok());
    }

    #[test]
    fn a_history_frame_has_bounds_and_defaults() {
        let request = |before, limit| Ok(HistoryRequest { before, limit });
        assert_eq!(HistoryRequest::parse("null"), request(None, 50));
        assert_eq!(
            HistoryRequest::parse(r#"{"before":7,"limit":1}"#),
            request(Some(7), 1)
        );
        for payload in [
            r#"{"limit":0}"#,
            r#"{"limit":-1}"#,
            r#"{"before":9007199254740992}"#,
            r#"{"before":"7"}"#,
            "[]",
        ] {
            assert!(HistoryRequest::parse(payload).is_err(), "{payload}");
        }
    }

    #[test]
    fn a_position_tells_whether_old_messages_come() {
        let encode = |recovery| {
            let position = at(1042);
            serde_json::to_string(&RoomPosition { position, recovery }).unwrap()
        };
        let start = r#"{"epoch":"k3v9","offset":1042"#;
        assert_eq!(encode(None), format!("{start}}}"));
        assert_eq!(
            encode(Some(Ok(3))),
            format!(r#"{start},"recovered":true,"count":3}}"#)
        );
        for (failure, reason) in [
            (RecoveryFailure::Epoch, "epoch"),
            (RecoveryFailure::Expired, "expired"),
            (RecoveryFailure::TooMany, "too_many"),
        ] {
            assert_eq!(
                encode(Some(Err(failure))),
                format!(r#"{start},"recovered":false,"reason":"{reason}"}}"#)
            );
        }
    }

    #[test]
    fn an_excerpt_contains_the_frames_as_they_are() {
        let frame = |text: &str| Frame::from(text.to_owned());
        let excerpt = HistoryExcerpt {
            position: Some(at(2)),
            messages: vec![frame(r#"{"offset":1}"#), frame(r#"{"offset":2}"#)],
            has_older: true,
        };
        assert_eq!(
            excerpt.encode(),
            r#"{"epoch":"k3v9","offset":2,"hasOlder":true,"messages":[{"offset":1},{"offset":2}]}"#
        );
        let none = HistoryExcerpt::default().encode();
        assert_eq!(none, r#"{"offset":0,"hasOlder":false,"messages":[]}"#);
    }
}

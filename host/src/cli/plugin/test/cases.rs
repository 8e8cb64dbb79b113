//! The format of recorded messages, which docs/plugin-testing.md describes.

use std::{fmt::Display, path::Path};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use signalbox::{
    plugin::MembershipChange,
    protocol::{Destination, EventType, RoomName, UserId, event_type},
};

use super::rooms::{self, DescribedRooms};

/// The outcomes that a case may expect.
pub(super) const OUTCOMES: [&str; 8] = [
    "delivered",
    "replied",
    "no_receiver",
    "rejected",
    "dropped",
    "actions",
    "accepted",
    "failed",
];

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recording {
    /// The configuration that `init` gets, an object.
    #[serde(default)]
    pub(super) config: Option<Box<RawValue>>,
    /// The event types that the plugin sees.
    #[serde(default = "every_type")]
    pub(super) events: Vec<String>,
    /// The rooms that the plugin can read.
    #[serde(default)]
    pub(super) rooms: DescribedRooms,
    pub(super) cases: Vec<TestCase>,
}

/// One input, and its expected outcome.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestCase {
    pub(super) name: String,
    #[serde(default)]
    pub(super) message: Option<SentMessage>,
    #[serde(default)]
    pub(super) connect: Option<Person>,
    #[serde(default)]
    pub(super) join: Option<Joining>,
    #[serde(default)]
    pub(super) joined: Option<RoomMembership>,
    #[serde(default)]
    pub(super) left: Option<RoomMembership>,
    /// The rooms that the plugin can read, instead of those of the file.
    #[serde(default)]
    pub(super) rooms: Option<DescribedRooms>,
    pub(super) expect: Value,
}

/// The input of a case.
pub(super) enum Input<'c> {
    Message(ParsedMessage<'c>),
    Connect(&'c Person),
    Join(&'c Joining),
    Membership(MembershipChange, &'c RoomMembership),
}

/// A message with valid names.
pub(super) struct ParsedMessage<'c> {
    pub(super) sent: &'c SentMessage,
    pub(super) event_type: EventType<'c>,
    pub(super) to: Option<Destination<'c>>,
}

/// A message as a client or a backend sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SentMessage {
    #[serde(rename = "type")]
    pub(super) event_type: String,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
    /// The user who sends it.
    #[serde(default = "ann")]
    pub(super) sender: String,
    #[serde(default)]
    receiver: Option<String>,
    #[serde(default)]
    room: Option<String>,
    #[serde(default)]
    everyone: bool,
    /// Whether a backend sends it, so that there is no connection.
    #[serde(default)]
    pub(super) backend: bool,
    /// The claims of the sender's token.
    #[serde(default)]
    pub(super) claims: Option<Box<RawValue>>,
}

/// A client that connects.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    #[serde(default = "ann")]
    pub(super) user: String,
    #[serde(default)]
    pub(super) claims: Option<Box<RawValue>>,
}

/// A client that wants to join a room.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Joining {
    pub(super) room: String,
    #[serde(default = "ann")]
    pub(super) user: String,
    #[serde(default)]
    pub(super) claims: Option<Box<RawValue>>,
}

/// A client that joined or left a room.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomMembership {
    pub(super) room: String,
    #[serde(default = "ann")]
    pub(super) user: String,
    /// The user's connections in the room after that.
    pub(super) connections: u32,
    #[serde(default)]
    pub(super) claims: Option<Box<RawValue>>,
}

fn every_type() -> Vec<String> {
    vec!["*".to_owned()]
}

fn ann() -> String {
    "ann".to_owned()
}

impl Recording {
    /// Reads a file and checks all of it.
    ///
    /// # Errors
    /// Returns a text that says what is wrong in the file, and where.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let recording: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        event_type::Patterns::parse(&recording.events)
            .map_err(|error| format!("events: {error}"))?;
        rooms::check(&recording.rooms)?;
        if recording.cases.is_empty() {
            return Err("`cases` is empty".to_owned());
        }
        for case in &recording.cases {
            let named = |error: &dyn Display| format!("case {:?}: {error}", case.name);
            case.check().map_err(|error| named(&error))?;
        }
        Ok(recording)
    }

    /// The configuration that `init` gets.
    pub(super) fn config_text(&self) -> &str {
        self.config.as_deref().map_or("{}", RawValue::get)
    }
}

impl TestCase {
    fn check(&self) -> Result<(), String> {
        self.input()?;
        self.rooms.as_ref().map_or(Ok(()), rooms::check)?;
        let outcome = match &self.expect {
            Value::Object(fields) if fields.len() == 1 => fields.keys().next(),
            _ => None,
        };
        if outcome.is_some_and(|outcome| OUTCOMES.contains(&outcome.as_str())) {
            return Ok(());
        }
        let outcomes = OUTCOMES.join(", ");
        Err(format!("`expect` must be an object with one of {outcomes}"))
    }

    /// Returns the input of the case.
    ///
    /// # Errors
    /// Returns an error unless there is exactly one input, and the names in it are valid.
    pub(super) fn input(&self) -> Result<Input<'_>, String> {
        let message = self.message.as_ref().map(SentMessage::parsed).transpose()?;
        let joined = |membership| Input::Membership(MembershipChange::Joined, membership);
        let left = |membership| Input::Membership(MembershipChange::Left, membership);
        let inputs = [
            message.map(Input::Message),
            self.connect.as_ref().map(Input::Connect),
            self.join.as_ref().map(Input::Join),
            self.joined.as_ref().map(joined),
            self.left.as_ref().map(left),
        ];
        let mut inputs = inputs.into_iter().flatten();
        match (inputs.next(), inputs.next()) {
            (Some(input), None) => Ok(input),
            _ => Err(
                "it must have one of `message`, `connect`, `join`, `joined` and `left`".to_owned(),
            ),
        }
    }
}

impl SentMessage {
    fn parsed(&self) -> Result<ParsedMessage<'_>, String> {
        Ok(ParsedMessage {
            sent: self,
            event_type: self.event_type()?,
            to: self.to()?,
        })
    }

    fn event_type(&self) -> Result<EventType<'_>, String> {
        let name = &self.event_type;
        EventType::parse_sendable(name).map_err(|_| {
            format!(
                "{name:?} is not a type that reaches plugins: 1 to 64 of `A-Z a-z 0-9 _ . : -`, and not built in"
            )
        })
    }

    fn to(&self) -> Result<Option<Destination<'_>>, String> {
        let too_long = || "`receiver` and `room` have 1 to 255 bytes".to_owned();
        match (&self.receiver, &self.room, self.everyone) {
            (None, None, everyone) => Ok(everyone.then_some(Destination::Everyone)),
            (Some(user), None, false) => match UserId::parse(user) {
                Some(user) => Ok(Some(Destination::User(user))),
                None => Err(too_long()),
            },
            (None, Some(room), false) => match RoomName::parse(room) {
                Some(room) => Ok(Some(Destination::Room(room))),
                None => Err(too_long()),
            },
            _ => Err("name one of `receiver`, `room` and `everyone`".to_owned()),
        }
    }

    /// The payload as JSON text, exactly as in the file.
    pub(super) fn payload(&self) -> &str {
        self.payload.as_deref().map_or("null", RawValue::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        match Recording::parse(text) {
            Ok(_) => panic!("this was taken: {text}"),
            Err(error) => error,
        }
    }

    #[test]
    fn an_error_names_its_case() {
        let case = |fields: &str| format!(r#"{{"cases":[{{"name":"first",{fields}}}]}}"#);
        for (fields, part) in [
            (r#""expect":{"dropped":true}"#, "one of `message`"),
            (
                r#""message":{"type":"a"},"join":{"room":"r"},"expect":{"dropped":true}"#,
                "one of `message`",
            ),
            (r#""message":{"type":"a"},"expect":{}"#, "`expect` must be"),
            (
                r#""message":{"type":"a"},"expect":{"droped":true}"#,
                "`expect` must be",
            ),
            (
                r#""message":{"type":"join"},"expect":{"dropped":true}"#,
                "built in",
            ),
            (
                r#""message":{"type":"a","receiver":"u","room":"r"},"expect":{"dropped":true}"#,
                "name one of",
            ),
        ] {
            let error = error(&case(fields));
            assert!(error.starts_with("case \"first\": "), "{error}");
            assert!(error.contains(part), "{error}");
        }
        let misspelled = case(r#""message":{"type":"a","reciever":"u"},"expect":{"dropped":true}"#);
        assert!(error(&misspelled).contains("unknown field `reciever`"));
        assert!(error(r#"{"cases":[]}"#).contains("empty"));
    }

    #[test]
    fn a_payload_keeps_its_bytes() {
        let text = r#"{"cases":[{"name":"a","message":{"type":"a","payload":{ "n": 1.10 }},"expect":{"dropped":true}}]}"#;
        let recording = Recording::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let Ok(Input::Message(message)) = recording.cases[0].input() else {
            panic!("it is a message");
        };
        assert_eq!(message.sent.payload(), r#"{ "n": 1.10 }"#);
        assert_eq!((message.sent.sender.as_str(), message.to), ("ann", None));
    }
}

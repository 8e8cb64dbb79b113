//! The answers of a guest: their types, and the rules that every answer must follow.
//!
//! The WIT types define what is possible, these checks what is allowed. An answer that breaks a rule fails the call, as
//! a trap does.

use signalbox_config::PluginLimits;
use signalbox_protocol::{CloseCode, Destination, EventType, NotSendable, RoomName, UserId, json};

use super::{
    bindings::{exported::requests, imported::types as raw},
    call_error::CallError,
};

/// The longest code of a rejection, in bytes.
const CODE_BYTES_MAX: usize = 64;
/// The longest reason of a rejection for clients, in bytes; the rest is cut off.
const REASON_BYTES_MAX: usize = 1024;

/// A message that a plugin created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// It is not built in.
    pub event_type: EventType<'static>,
    /// `None`: nobody.
    pub destination: Option<Destination<'static>>,
    /// JSON text.
    pub payload: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// For programs.
    pub code: String,
    /// For people.
    pub reason: String,
}

/// The answer to a call that the plugin may reject.
pub type PluginVerdict<T> = Result<Result<T, Rejection>, CallError>;

/// The result of a transformation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transformed {
    /// The message continues unchanged.
    Unchanged,
    /// The message continues as this one.
    Changed(Draft),
    /// The message goes no further.
    Dropped,
}

/// Something that the host should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Deliver the message that is being handled.
    Deliver,
    /// Send a message in the sender's name.
    Send(Draft),
    /// Send a message in the platform's name.
    Announce(Draft),
    /// Put the connection into a room.
    Join(RoomName<'static>),
    /// Take it out of a room.
    Leave(RoomName<'static>),
    /// Close it.
    Disconnect {
        /// 4000–4999.
        code: CloseCode,
        /// For people.
        reason: String,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// JSON text for the sender.
    pub data: String,
    /// The actions, in order.
    pub actions: Vec<Action>,
}

/// The rule that an answer breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(super) struct IllegalAnswer(String);

fn illegal<T>(what: impl Into<String>) -> Result<T, IllegalAnswer> {
    Err(IllegalAnswer(what.into()))
}

/// Checks a rejection. A reason that is too long is only truncated.
pub(super) fn rejection(raw: raw::Rejection) -> Result<Rejection, IllegalAnswer> {
    let spelled_well = raw
        .code
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'));
    if raw.code.is_empty() || raw.code.len() > CODE_BYTES_MAX || !spelled_well {
        return illegal("the code of a rejection must be 1 to 64 of `a-z 0-9 _ . -`");
    }
    let mut reason = raw.reason;
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    Ok(Rejection {
        code: raw.code,
        reason,
    })
}

/// Checks the result of `transform`.
pub(super) fn transformed(raw: raw::Outcome) -> Result<Transformed, IllegalAnswer> {
    Ok(match raw {
        raw::Outcome::Unchanged => Transformed::Unchanged,
        raw::Outcome::Dropped => Transformed::Dropped,
        raw::Outcome::Changed(changed) => Transformed::Changed(draft(changed)?),
    })
}

/// Checks the answer to a request.
pub(super) fn reply(raw: requests::Reply, limits: &PluginLimits) -> Result<Reply, IllegalAnswer> {
    json::check(&raw.data)
        .map_err(|fault| IllegalAnswer(format!("the data of a reply: {fault}")))?;
    Ok(Reply {
        data: raw.data,
        actions: actions(raw.actions, limits)?,
    })
}

/// Checks a list of actions: one illegal action makes the whole list illegal.
pub(super) fn actions(
    raw: Vec<raw::Action>,
    limits: &PluginLimits,
) -> Result<Vec<Action>, IllegalAnswer> {
    if raw.len() > limits.actions_max {
        return illegal(format!(
            "{} actions, the limit is {} (`actions_max`)",
            raw.len(),
            limits.actions_max
        ));
    }
    raw.into_iter().map(action).collect()
}

fn action(raw: raw::Action) -> Result<Action, IllegalAnswer> {
    Ok(match raw {
        raw::Action::Deliver => Action::Deliver,
        raw::Action::Send(message) => Action::Send(draft(message)?),
        raw::Action::Announce(message) => Action::Announce(draft(message)?),
        raw::Action::Join(name) => Action::Join(room(name)?),
        raw::Action::Leave(name) => Action::Leave(room(name)?),
        raw::Action::Disconnect(how) => {
            let Some(code) = CloseCode::from_plugin(how.code) else {
                return illegal(format!(
                    "{} is not a close code for plugins: use 4000 to 4999",
                    how.code
                ));
            };
            Action::Disconnect {
                code,
                reason: how.reason,
            }
        }
    })
}

fn draft(raw: raw::Draft) -> Result<Draft, IllegalAnswer> {
    let event_type = EventType::parse_sendable(raw.event_type).map_err(|reason| {
        IllegalAnswer(match reason {
            NotSendable::Malformed => {
                "the event type of a message must be 1 to 64 of `A-Z a-z 0-9 _ . : -`".to_owned()
            }
            NotSendable::BuiltIn(name) => format!("`{name}` is built in; a plugin cannot send it"),
        })
    })?;
    json::check(&raw.payload)
        .map_err(|fault| IllegalAnswer(format!("the payload of a message: {fault}")))?;
    let destination = raw.destination.map(destination).transpose()?;
    Ok(Draft {
        event_type,
        destination,
        payload: raw.payload,
    })
}

fn destination(raw: raw::DestinationResult) -> Result<Destination<'static>, IllegalAnswer> {
    Ok(match raw {
        raw::DestinationResult::Sender => Destination::Sender,
        raw::DestinationResult::Everyone => Destination::Everyone,
        raw::DestinationResult::Room(name) => Destination::Room(room(name)?),
        raw::DestinationResult::User(user) => match UserId::parse(user) {
            Some(user) => Destination::User(user),
            None => return illegal("a user ID must be 1 to 255 bytes"),
        },
    })
}

fn room(name: String) -> Result<RoomName<'static>, IllegalAnswer> {
    match RoomName::parse(name) {
        Some(room) => Ok(room),
        None => illegal("a room's name must be 1 to 255 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw_draft(
        event_type: &str,
        payload: &str,
        destination: Option<raw::DestinationResult>,
    ) -> raw::Draft {
        raw::Draft {
            event_type: event_type.into(),
            destination,
            payload: payload.into(),
        }
    }

    #[test]
    fn drafts_are_held_to_the_limits_of_the_wire() {
        assert!(draft(raw_draft("a", "{}", None)).is_ok());
        assert!(draft(raw_draft(&"a".repeat(65), "{}", None)).is_err());
        assert!(draft(raw_draft("welcome", "{}", None)).is_err());
        for payload in [
            "{not json",
            r#""\ud83d""#,
            r#"{"\uDC00":1}"#,
            &"1".repeat(401),
        ] {
            assert!(draft(raw_draft("a", payload, None)).is_err(), "{payload}");
        }
        assert!(
            draft(raw_draft(
                "a",
                &format!("{}{}", "[".repeat(101), "]".repeat(101)),
                None
            ))
            .is_err()
        );
        for name in [String::new(), "x".repeat(256)] {
            assert!(
                draft(raw_draft(
                    "a",
                    "1",
                    Some(raw::DestinationResult::User(name.clone()))
                ))
                .is_err()
            );
            assert!(
                draft(raw_draft(
                    "a",
                    "1",
                    Some(raw::DestinationResult::Room(name))
                ))
                .is_err()
            );
        }
    }

    #[test]
    fn rejections_have_a_code_for_programs() {
        let with = |code: &str| {
            rejection(raw::Rejection {
                code: code.into(),
                reason: "x".repeat(5000),
            })
        };
        assert_eq!(with("too_long").unwrap().reason.len(), REASON_BYTES_MAX);
        for bad in ["", "Too Long", "ä", &"x".repeat(65)] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_data_of_a_reply_is_json_and_its_actions_are_checked() {
        let check = |data: &str, actions: Vec<raw::Action>| {
            let data = data.to_owned();
            reply(requests::Reply { data, actions }, &PluginLimits::default())
        };
        let spaced = check(r#" {"n": 1.10} "#, vec![raw::Action::Deliver]).unwrap();
        assert_eq!(spaced.data, r#" {"n": 1.10} "#);
        let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
        for data in ["", "{not json", "1 2", r#""\ud83d""#, &deep] {
            assert!(check(data, Vec::new()).is_err(), "{data}");
        }
        assert!(check("1", vec![raw::Action::Join(String::new())]).is_err());
    }

    #[test]
    fn one_illegal_action_makes_the_whole_list_illegal() {
        let limits = PluginLimits {
            actions_max: 2,
            ..PluginLimits::default()
        };
        let kick = |code| {
            raw::Action::Disconnect(raw::DisconnectionResult {
                code,
                reason: String::new(),
            })
        };
        assert!(actions(vec![raw::Action::Deliver, kick(4501)], &limits).is_ok());
        assert!(actions(vec![raw::Action::Deliver, kick(1000)], &limits).is_err());
        assert!(actions(vec![raw::Action::Deliver; 3], &limits).is_err());
    }
}

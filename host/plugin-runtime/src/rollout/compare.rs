//! Compares the answers of two versions, and finds how they differ.
//!
//! A recorded difference holds the kind of each answer and the fields that differ, but no contents: messages are for
//! their receivers, not for the operators of the server.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use signalbox_telemetry::metrics::FailureKind;

use crate::{Action, Draft, Rejection, Reply, Transformed, response::PluginVerdict, rfc3339};

/// The answer of a version.
#[derive(Clone, Debug, PartialEq)]
pub enum VersionAnswer {
    /// It accepts the message.
    Accepted,
    /// It rejects the message.
    Rejected(Rejection),
    /// It leaves the message unchanged.
    Unchanged,
    /// It changes the message to this one.
    Changed(Draft),
    /// It drops the message.
    Dropped,
    /// It requests these actions.
    Actions(Vec<Action>),
    /// It answers the request.
    Replied(Reply),
    /// It does not handle this type.
    Unhandled,
    /// The call failed.
    Failed(FailureKind),
}

/// The answer of a call that did not fail.
pub trait ToVersionAnswer {
    /// The answer in a form that can be compared.
    fn tell(&self) -> VersionAnswer;
}

impl ToVersionAnswer for () {
    fn tell(&self) -> VersionAnswer {
        VersionAnswer::Accepted
    }
}

impl ToVersionAnswer for Transformed {
    fn tell(&self) -> VersionAnswer {
        match self {
            Self::Unchanged => VersionAnswer::Unchanged,
            Self::Changed(draft) => VersionAnswer::Changed(draft.clone()),
            Self::Dropped => VersionAnswer::Dropped,
        }
    }
}

impl ToVersionAnswer for Vec<Action> {
    fn tell(&self) -> VersionAnswer {
        VersionAnswer::Actions(self.clone())
    }
}

impl ToVersionAnswer for Reply {
    fn tell(&self) -> VersionAnswer {
        VersionAnswer::Replied(self.clone())
    }
}

impl VersionAnswer {
    /// Converts `verdict`.
    pub(super) fn of<T: ToVersionAnswer>(verdict: &PluginVerdict<T>) -> Self {
        match verdict {
            Ok(Ok(answer)) => answer.tell(),
            Ok(Err(rejection)) => Self::Rejected(rejection.clone()),
            Err(error) => Self::Failed(error.kind),
        }
    }

    /// The approximate size of its texts, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Rejected(rejection) => rejection.code.len() + rejection.reason.len(),
            Self::Changed(draft) => bytes(draft),
            Self::Actions(actions) => of_actions(actions),
            Self::Replied(reply) => reply.data.len() + of_actions(&reply.actions),
            _ => 0,
        }
    }

    /// A summary without contents: the kind of answer, and the code if it has one.
    fn in_short(&self) -> String {
        match self {
            Self::Accepted => "accepted".to_owned(),
            Self::Rejected(rejection) => format!("rejected with {}", rejection.code),
            Self::Unchanged => "unchanged".to_owned(),
            Self::Changed(_) => "changed".to_owned(),
            Self::Dropped => "dropped".to_owned(),
            Self::Actions(actions) => format!("{} actions", actions.len()),
            Self::Replied(reply) => format!("replied, and {} actions", reply.actions.len()),
            Self::Unhandled => "not handled".to_owned(),
            Self::Failed(kind) => format!("failed: {}", kind.as_str()),
        }
    }
}

fn bytes(draft: &Draft) -> usize {
    draft.event_type.len() + draft.payload.len()
}

fn of_actions(actions: &[Action]) -> usize {
    actions.iter().map(|action| 64 + of_action(action)).sum()
}

fn of_action(action: &Action) -> usize {
    match action {
        Action::Send(draft) | Action::Announce(draft) => bytes(draft),
        Action::Join(room) | Action::Leave(room) => room.len(),
        Action::Disconnect { reason, .. } => reason.len(),
        Action::Deliver => 0,
    }
}

/// How the answers of two versions to one message differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerDifference {
    /// When it was found.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub at: SystemTime,
    /// The ID of the message.
    pub message_id: String,
    /// Its event type.
    pub event_type: String,
    /// `validate`, `transform`, `screen`, `handle` or `respond`.
    pub call: &'static str,
    /// The answer of the live version, without contents.
    pub live: String,
    /// The answer of the shadow, without contents.
    pub shadow: String,
    /// The fields that differ, if both versions changed the message or answered the request.
    pub fields: Vec<&'static str>,
}

/// How the two answers differ; `None` if they are equivalent. Payloads are compared as JSON.
pub(super) fn difference(
    live: &VersionAnswer,
    shadow: &VersionAnswer,
) -> Option<(String, String, Vec<&'static str>)> {
    let fields = match (live, shadow) {
        (VersionAnswer::Changed(one), VersionAnswer::Changed(other)) => {
            let fields = drafts(one, other);
            if fields.is_empty() {
                return None;
            }
            fields
        }
        (VersionAnswer::Actions(ones), VersionAnswer::Actions(others))
            if all_same(ones, others) =>
        {
            return None;
        }
        (VersionAnswer::Replied(one), VersionAnswer::Replied(other)) => {
            let fields = replies(one, other);
            if fields.is_empty() {
                return None;
            }
            fields
        }
        // The reason for a rejection is for people, and may be worded differently.
        (VersionAnswer::Rejected(one), VersionAnswer::Rejected(other))
            if one.code == other.code =>
        {
            return None;
        }
        (one, other) if one == other => return None,
        _ => Vec::new(),
    };
    Some((live.in_short(), shadow.in_short(), fields))
}

fn drafts(one: &Draft, other: &Draft) -> Vec<&'static str> {
    let differ = [
        ("type", one.event_type != other.event_type),
        ("destination", one.destination != other.destination),
        ("payload", !is_same_json(&one.payload, &other.payload)),
    ];
    let differ = differ.into_iter().filter(|(_, differs)| *differs);
    differ.map(|(field, _)| field).collect()
}

fn replies(one: &Reply, other: &Reply) -> Vec<&'static str> {
    let differ = [
        ("data", !is_same_json(&one.data, &other.data)),
        ("actions", !all_same(&one.actions, &other.actions)),
    ];
    let differ = differ.into_iter().filter(|(_, differs)| *differs);
    differ.map(|(field, _)| field).collect()
}

fn all_same(ones: &[Action], others: &[Action]) -> bool {
    let mut pairs = ones.iter().zip(others);
    ones.len() == others.len() && pairs.all(|(one, other)| same(one, other))
}

fn same(one: &Action, other: &Action) -> bool {
    match (one, other) {
        (Action::Send(one), Action::Send(other))
        | (Action::Announce(one), Action::Announce(other)) => drafts(one, other).is_empty(),
        (one, other) => one == other,
    }
}

fn is_same_json(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || read(one).is_some_and(|value| Some(value) == read(other))
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::{Destination, EventType};

    use super::*;

    fn draft(event_type: &str, payload: &str) -> Draft {
        Draft {
            event_type: EventType::parse(event_type.to_owned()).expect("a type"),
            destination: Some(Destination::Sender),
            payload: payload.to_owned(),
        }
    }

    fn rejected(code: &str, reason: &str) -> VersionAnswer {
        VersionAnswer::Rejected(Rejection {
            code: code.to_owned(),
            reason: reason.to_owned(),
        })
    }

    #[test]
    fn the_same_in_other_words_is_the_same() {
        let same = |one: &VersionAnswer, other: &VersionAnswer| difference(one, other).is_none();
        assert!(same(&VersionAnswer::Accepted, &VersionAnswer::Accepted));
        assert!(same(&rejected("a", "one"), &rejected("a", "two")));
        let (one, other) = (
            draft("t", r#"{"a":1,"b":2}"#),
            draft("t", r#"{"b":2, "a":1}"#),
        );
        assert!(same(
            &VersionAnswer::Changed(one.clone()),
            &VersionAnswer::Changed(other.clone())
        ));
        let actions = |draft| VersionAnswer::Actions(vec![Action::Deliver, Action::Send(draft)]);
        assert!(same(&actions(one.clone()), &actions(other.clone())));
        let reply = |draft, data: &str| {
            let (data, actions) = (data.to_owned(), vec![Action::Send(draft)]);
            VersionAnswer::Replied(Reply { data, actions })
        };
        let (one, other) = (reply(one, "[1, 2]"), reply(other, "[1,2]"));
        assert!(same(&one, &other));
        let failed = VersionAnswer::Failed(FailureKind::Trap);
        assert!(same(&failed, &failed));
    }

    #[test]
    fn a_difference_names_kinds_and_fields_and_shows_no_contents() {
        let secret = draft("t", r#""hush""#);
        let (one, other) = (
            VersionAnswer::Changed(secret.clone()),
            VersionAnswer::Changed(draft("u", "1")),
        );
        assert_eq!(
            difference(&one, &other),
            Some((
                "changed".to_owned(),
                "changed".to_owned(),
                vec!["type", "payload"]
            ))
        );
        for told in [
            rejected("code", "hush"),
            VersionAnswer::Actions(vec![Action::Send(secret)]),
            VersionAnswer::Dropped,
            VersionAnswer::Failed(FailureKind::Deadline),
            VersionAnswer::Unhandled,
        ] {
            let found = difference(&one, &told).expect("they differ");
            assert!(!format!("{found:?}").contains("hush"), "{found:?}");
        }
        let refused = difference(&VersionAnswer::Accepted, &rejected("too_long", "x")).unwrap();
        assert_eq!(refused.1, "rejected with too_long");
        let reply = |data: &str| {
            let (data, actions) = (data.to_owned(), Vec::new());
            VersionAnswer::Replied(Reply { data, actions })
        };
        let found = difference(&reply(r#""hush""#), &reply("2")).expect("they differ");
        assert_eq!(
            (&*found.0, found.2),
            ("replied, and 0 actions", vec!["data"])
        );
        let more = VersionAnswer::Actions(vec![Action::Deliver]);
        let found = difference(&more, &VersionAnswer::Actions(Vec::new())).unwrap();
        assert_eq!(found.0, "1 actions");
    }
}

//! Runs cases, and describes their outcomes in the words in which cases expect them.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use serde_json::{Map, Value, json, value::RawValue};
use signalbox::{
    pipeline::{self, AccessDenied, Message, Outcome},
    plugin::{Action, Draft, PluginSet, PluginSlot},
    protocol::ClientInfo,
    protocol::Destination,
};

use super::cases::{Input, ParsedMessage};

/// When the clients of all cases connected, in milliseconds since the Unix epoch.
const CONNECTED_AT_MS: u64 = 1_767_225_600_000;

/// Runs `input`, the input of case `number`, through `plugins`.
pub(super) async fn run(plugins: &PluginSet, number: usize, input: &Input<'_>) -> Value {
    match input {
        Input::Message(message) => {
            let sent = message.sent;
            let client = client(&sent.sender, sent.claims.as_deref());
            let client = (!sent.backend).then_some(&client);
            let id = format!("case-{number}");
            let outcome = pipeline::run(plugins, client, of_parsed(&id, message)).await;
            of_message(plugins, outcome)
        }
        Input::Connect(person) => {
            let client = client(&person.user, person.claims.as_deref());
            match pipeline::connected(plugins, &client).await {
                Ok(done) => json!({"actions": actions(&done, None)}),
                Err(refused) => of_refusal(plugins, refused),
            }
        }
        Input::Join(joining) => {
            let client = client(&joining.user, joining.claims.as_deref());
            match pipeline::authorize_join(plugins, &client, &joining.room).await {
                Ok(()) => json!({"accepted": true}),
                Err(refused) => of_refusal(plugins, refused),
            }
        }
        Input::Membership(change, membership) => {
            let client = client(&membership.user, membership.claims.as_deref());
            let (room, connections) = (&membership.room, membership.connections);
            let version = plugins.slots().iter().find_map(PluginSlot::version);
            let Some(version) = version.filter(|version| version.follows_membership()) else {
                return json!({"actions": []});
            };
            // Not through the pipeline, which skips a plugin that fails.
            let called = version.membership_changed(&client, *change, room, connections);
            match called.await {
                Ok(done) => json!({"actions": actions(&done, None)}),
                Err(error) => of_failure(error.kind.as_str(), &error.detail),
            }
        }
    }
}

/// The meaning of `"unchanged"` in a case: the message as it was sent.
pub(super) fn as_sent(message: &ParsedMessage<'_>) -> Value {
    Value::Object(in_words(&of_parsed("", message)))
}

fn of_parsed<'m>(id: &'m str, message: &'m ParsedMessage<'_>) -> Message<'m> {
    Message {
        id,
        event_type: message.event_type.borrowed(),
        sender: &message.sent.sender,
        to: message.to.clone(),
        payload: Cow::Borrowed(message.sent.payload()),
        timestamp: SystemTime::now(),
        trace: None,
        seen: None,
    }
}

fn client(user: &str, claims: Option<&RawValue>) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        connection: format!("connection-of-{user}"),
        user: user.to_owned(),
        claims: claims.map_or("{}", RawValue::get).to_owned(),
        address: "192.0.2.1:50000".to_owned(),
        connected_at_ms: CONNECTED_AT_MS,
    })
}

fn of_message(plugins: &PluginSet, outcome: Outcome<'_>) -> Value {
    match outcome {
        Outcome::Route(message) if message.to.is_none() => {
            json!({"no_receiver": in_words(&message)})
        }
        Outcome::Route(message) => json!({"delivered": in_words(&message)}),
        Outcome::Handled {
            message,
            actions: done,
        } => json!({"actions": actions(&done, Some(&message))}),
        Outcome::Replied { message, reply } => {
            let actions = actions(&reply.actions, Some(&message));
            json!({"replied": {"data": parsed(&reply.data), "actions": actions}})
        }
        Outcome::Dropped => json!({"dropped": true}),
        Outcome::Rejected { plugin, rejection } => {
            of_refusal(plugins, AccessDenied::Rejected { plugin, rejection })
        }
        Outcome::Failed { plugin } => of_refusal(plugins, AccessDenied::Failed { plugin }),
    }
}

fn of_refusal(plugins: &PluginSet, refused: AccessDenied) -> Value {
    match refused {
        AccessDenied::Rejected { rejection, .. } => {
            json!({"rejected": {"code": rejection.code, "reason": rejection.reason}})
        }
        AccessDenied::Failed { .. } => {
            let version = plugins.slots().iter().find_map(PluginSlot::version);
            let error = version.and_then(|version| version.stats().last_error());
            let error = error.map(|error| (error.kind.as_str(), error.message));
            let (kind, message) = error.unwrap_or_default();
            of_failure(kind, &message)
        }
    }
}

fn of_failure(kind: &str, message: &str) -> Value {
    json!({"failed": {"kind": kind, "message": message}})
}

/// JSON text of the file, or of the output of a plugin. Both were checked.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn actions(done: &[Action], message: Option<&Message<'_>>) -> Vec<Value> {
    let action = |action: &Action| match action {
        Action::Deliver => json!({"deliver": message.map(in_words).unwrap_or_default()}),
        Action::Send(draft) => json!({"send": of_draft(draft)}),
        Action::Announce(draft) => json!({"announce": of_draft(draft)}),
        Action::Join(room) => json!({"join": &**room}),
        Action::Leave(room) => json!({"leave": &**room}),
        Action::Disconnect { code, reason } => {
            json!({"disconnect": {"code": code.number(), "reason": reason}})
        }
    };
    done.iter().map(action).collect()
}

fn in_words(message: &Message<'_>) -> Map<String, Value> {
    described(&message.event_type, &message.payload, message.to.as_ref())
}

fn of_draft(draft: &Draft) -> Map<String, Value> {
    described(
        &draft.event_type,
        &draft.payload,
        draft.destination.as_ref(),
    )
}

fn described(event_type: &str, payload: &str, to: Option<&Destination<'_>>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), event_type.into());
    fields.insert("payload".to_owned(), parsed(payload));
    let to = to.map(|to| match to {
        Destination::Sender => ("to_sender", true.into()),
        Destination::User(user) => ("receiver", Value::from(&**user)),
        Destination::Room(room) => ("room", Value::from(&**room)),
        Destination::Everyone => ("everyone", true.into()),
    });
    fields.extend(to.map(|(name, value)| (name.to_owned(), value)));
    fields
}

//! The steps that the plugin can run: actions for the host, and calls to it.

use serde::Deserialize;
use serde_json::{Value, json};
use signalbox_plugin::{
    Action, Destination, Disconnection, Draft, context, log, metrics,
    room_state::{self, RoomError},
    store::{self, StoreError},
};

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    Deliver,
    Send(Post),
    Announce(Post),
    Join(String),
    Leave(String),
    Disconnect(u16, String),
}

/// A message to send.
#[derive(Deserialize)]
pub struct Post {
    #[serde(rename = "type")]
    event_type: String,
    to: Option<To>,
    #[serde(default)]
    payload: Value,
    /// Sent instead of `payload`, and not necessarily JSON.
    raw: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Sender,
    User(String),
    Room(String),
    Everyone,
}

impl Step {
    pub fn action(&self) -> Action {
        match self {
            Self::Deliver => Action::Deliver,
            Self::Send(post) => Action::Send(post.draft()),
            Self::Announce(post) => Action::Announce(post.draft()),
            Self::Join(room) => Action::Join(room.clone()),
            Self::Leave(room) => Action::Leave(room.clone()),
            Self::Disconnect(code, reason) => Action::Disconnect(Disconnection {
                code: *code,
                reason: reason.clone(),
            }),
        }
    }
}

impl Post {
    fn draft(&self) -> Draft {
        Draft {
            event_type: self.event_type.clone(),
            destination: self.to.as_ref().map(|to| match to {
                To::Sender => Destination::Sender,
                To::User(user) => Destination::User(user.clone()),
                To::Room(room) => Destination::Room(room.clone()),
                To::Everyone => Destination::Everyone,
            }),
            payload: self.raw.clone().unwrap_or_else(|| self.payload.to_string()),
        }
    }
}

/// One call to the host. Values of the store are text here.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    Log(String, String),
    Context,
    Get(String),
    Set(String, String, Option<u32>),
    Remove(String),
    Increment(String, i32, Option<u32>),
    Swap(String, Option<String>, String, Option<u32>),
    Count(String, u32),
    Observe(String, f64),
    /// The number of connections in a room.
    #[serde(rename = "room_count")]
    RoomCount(String),
    /// The users in a room.
    #[serde(rename = "room_members")]
    RoomMembers(String),
    /// The messages of a room before an offset, and how many.
    #[serde(rename = "room_history")]
    RoomHistory(String, Option<u64>, u32),
}

impl Call {
    pub fn run(&self) -> Value {
        match self {
            Self::Log(level, line) => {
                let level = match level.as_str() {
                    "debug" => log::Level::Debug,
                    "info" => log::Level::Info,
                    "warn" => log::Level::Warn,
                    _ => log::Level::Error,
                };
                log::write(level, line);
                Value::Null
            }
            Self::Context => {
                let client = context::current_client().map(|client| {
                    json!({
                        "connection": client.connection, "user": client.user, "claims": client.claims,
                        "address": client.address, "connected_at": client.connected_at,
                    })
                });
                json!({
                    "client": client, "node": context::node(), "now": context::now(),
                    "random": context::random(),
                })
            }
            Self::Get(key) => result_json(
                store::get(key)
                    .map(|value| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
            ),
            Self::Set(key, value, ttl) => result_json(store::set(key, value.as_bytes(), *ttl)),
            Self::Remove(key) => result_json(store::remove(key)),
            Self::Increment(key, by, ttl) => result_json(store::increment(key, *by, *ttl)),
            Self::Swap(key, expected, value, ttl) => result_json(store::compare_and_swap(
                key,
                expected.as_ref().map(String::as_bytes),
                value.as_bytes(),
                *ttl,
            )),
            Self::Count(name, by) => {
                metrics::count(name, *by);
                Value::Null
            }
            Self::Observe(name, value) => {
                metrics::observe(name, *value);
                Value::Null
            }
            Self::RoomCount(room) => of_room(room_state::count(room)),
            Self::RoomMembers(room) => of_room(room_state::members(room).map(|members| {
                let member = |member: room_state::Member| {
                    json!({"user": member.user, "connections": member.connections, "info": member.info})
                };
                members.into_iter().map(member).collect::<Vec<_>>()
            })),
            Self::RoomHistory(room, before, limit) => {
                of_room(room_state::history(room, *before, *limit).map(|kept| {
                    let message = |kept: room_state::KeptMessage| {
                        json!({
                            "offset": kept.offset, "type": kept.event_type, "sender": kept.sender,
                            "payload": kept.payload, "timestamp": kept.timestamp,
                        })
                    };
                    kept.into_iter().map(message).collect::<Vec<_>>()
                }))
            }
        }
    }
}

fn of_room<T: serde::Serialize>(result: Result<T, RoomError>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({"error": match error {
            RoomError::SwitchedOff => "switched-off",
            RoomError::Invalid => "invalid",
            RoomError::TooManyCalls => "too-many-calls",
            RoomError::Unavailable => "unavailable",
        }}),
    }
}

fn result_json<T: serde::Serialize>(result: Result<T, StoreError>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({"error": match error {
            StoreError::TooLarge => "too-large",
            StoreError::NotANumber => "not-a-number",
            StoreError::TooManyCalls => "too-many-calls",
            StoreError::Unavailable => "unavailable",
        }}),
    }
}

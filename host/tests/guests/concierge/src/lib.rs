//! A plugin that answers requests and follows the members of rooms. The payload of a request says how to answer it; the
//! configuration says what to do when members come and go. It carries a stamp: bytes that a test replaces in the component,
//! which makes another version without a build. A version whose stamp begins with `STAMP-bad` panics at members.

#[path = "../../follower/src/script.rs"]
mod script;

use std::hint::black_box;

use serde::Deserialize;
use serde_json::{Value, json};
use signalbox_plugin::{
    Action, Client, Destination, Draft, Events, Membership, Message, Plugin, Rejection, Reply,
    Requests, config, payload,
};

use script::{Call, Step};

/// Occurs once in the component, so that tests can find and replace it.
static STAMP: [u8; 16] = *b"STAMP-0000000000";

/// Reads the stamp at run time: the compiler must not fold the constant, because tests replace it.
fn stamp() -> &'static str {
    std::str::from_utf8(black_box(&STAMP)).unwrap_or("not text")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The types that it handles as events: the sender of one gets the event `handled`.
    handles: Vec<String>,
    /// The types of the requests that it answers.
    answers: Vec<String>,
    /// The user who is informed when members come and go.
    watcher: Option<String>,
    /// Steps to run when a connection has joined a room.
    joined: Vec<Step>,
    /// Steps to run when a connection has left a room.
    left: Vec<Step>,
    /// Whether it panics instead of following members.
    clumsy: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handles: Vec::new(),
            answers: vec!["ask.*".to_owned()],
            watcher: None,
            joined: Vec::new(),
            left: Vec::new(),
            clumsy: false,
        }
    }
}

/// How to answer a request.
#[derive(Deserialize)]
#[serde(default)]
struct Request {
    /// The data, unless one of the next three says otherwise.
    data: Value,
    /// The data as text, and not necessarily JSON.
    raw: Option<String>,
    /// Calls to the host, whose results are the data.
    calls: Vec<Call>,
    /// Whether the data is the stamp.
    version: bool,
    /// Actions to carry out.
    actions: Vec<Step>,
    /// The code with which to refuse the request.
    refuse: Option<String>,
    /// Whether to panic.
    trap: bool,
    /// The stamp of the version that panics.
    trap_on: Option<String>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            data: Value::Null,
            raw: None,
            calls: Vec::new(),
            version: false,
            actions: Vec::new(),
            refuse: None,
            trap: false,
            trap_on: None,
        }
    }
}

impl Request {
    fn data(&self) -> String {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        if self.version {
            return json!(stamp()).to_string();
        }
        if self.calls.is_empty() {
            return self.data.to_string();
        }
        let results: Vec<Value> = self.calls.iter().map(Call::run).collect();
        Value::from(results).to_string()
    }
}

struct Concierge(Config);

impl Plugin for Concierge {
    fn init(text: &str) -> Result<Self, String> {
        config::parse(text).map(Self)
    }
}

impl Requests for Concierge {
    fn request_types(&self) -> Vec<String> {
        self.0.answers.clone()
    }

    fn respond(&self, message: &Message) -> Result<Reply, Rejection> {
        let request: Option<Request> = payload::parse(message)?;
        let request = request.unwrap_or_default();
        let is_meant = request.trap_on.as_deref() == Some(stamp());
        assert!(!request.trap && !is_meant, "the request asks for a panic");
        if let Some(code) = &request.refuse {
            return Err(Rejection::new(code, "the request asks for a refusal"));
        }
        Ok(Reply {
            data: request.data(),
            actions: request.actions.iter().map(Step::action).collect(),
        })
    }
}

impl Events for Concierge {
    fn event_types(&self) -> Vec<String> {
        self.0.handles.clone()
    }

    fn handle(&self, _message: &Message) -> Result<Vec<Action>, Rejection> {
        Ok(vec![Action::reply("handled", &())?])
    }
}

impl Concierge {
    fn actions(
        &self,
        change: &str,
        client: &Client,
        room: &str,
        connections: u32,
        steps: &[Step],
    ) -> Vec<Action> {
        let is_clumsy = self.0.clumsy || stamp().starts_with("STAMP-bad");
        assert!(!is_clumsy, "it stumbles over members");
        let mut actions: Vec<_> = steps.iter().map(Step::action).collect();
        if let Some(watcher) = &self.0.watcher {
            let claims: Value = serde_json::from_str(&client.claims).unwrap_or_default();
            let change = json!({
                "change": change, "user": client.user, "room": room, "connections": connections, "claims": claims,
            });
            actions.push(Action::Announce(Draft {
                event_type: "membership".to_owned(),
                destination: Some(Destination::User(watcher.clone())),
                payload: change.to_string(),
            }));
        }
        actions
    }
}

impl Membership for Concierge {
    fn joined(&self, client: &Client, room: &str, connections: u32) -> Vec<Action> {
        self.actions("joined", client, room, connections, &self.0.joined)
    }

    fn left(&self, client: &Client, room: &str, connections: u32) -> Vec<Action> {
        self.actions("left", client, room, connections, &self.0.left)
    }
}

signalbox_plugin::export!(Concierge: requests, events, membership);

//! A plugin that uses everything that the host offers. Its configuration says what to do when a connection opens or
//! closes; the payload of a message says what to do with that message.

mod script;

use serde::Deserialize;
use serde_json::{Value, json};
use signalbox_plugin::{
    Action, Client, Connections, Destination, Disconnection, Draft, Events, Message, Plugin,
    Rejection, Rooms, config, payload,
};

use script::{Call, Step};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Users whose connections it rejects.
    banned: Vec<String>,
    /// Rooms that it lets nobody join.
    closed: Vec<String>,
    /// Steps to run when a connection opens.
    connected: Vec<Step>,
    /// Steps to run when a connection has closed.
    disconnected: Vec<Step>,
    /// The user to notify when a connection closes, and why it did.
    watcher: Option<String>,
    /// Whether it handles no messages: two plugins cannot handle the same types.
    idle: bool,
}

struct Follower(Config);

impl Plugin for Follower {
    fn init(text: &str) -> Result<Self, String> {
        config::parse(text).map(Self)
    }
}

impl Connections for Follower {
    fn connected(&self, client: &Client) -> Result<Vec<Action>, Rejection> {
        if self.0.banned.contains(&client.user) {
            return Err(Rejection::new(
                "banned",
                "come back when you have cooled down",
            ));
        }
        Ok(self.0.connected.iter().map(Step::action).collect())
    }

    fn disconnected(&self, client: &Client, how: &Disconnection) -> Vec<Action> {
        let mut actions: Vec<_> = self.0.disconnected.iter().map(Step::action).collect();
        if let Some(watcher) = &self.0.watcher {
            let gone = json!({"gone": client.user, "code": how.code, "reason": how.reason});
            actions.push(Action::Announce(Draft {
                event_type: "gone".to_owned(),
                destination: Some(Destination::User(watcher.clone())),
                payload: gone.to_string(),
            }));
        }
        actions
    }
}

impl Rooms for Follower {
    fn authorize_join(&self, client: &Client, room: &str) -> Result<(), Rejection> {
        if self.0.closed.iter().any(|closed| closed == room) {
            let reason = format!("{} may not be in {room}", client.user);
            return Err(Rejection::new("closed", reason));
        }
        Ok(())
    }
}

impl Events for Follower {
    fn event_types(&self) -> Vec<String> {
        let all = ["follower.do", "follower.call"].map(str::to_owned);
        if self.0.idle {
            Vec::new()
        } else {
            all.to_vec()
        }
    }

    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        if message.event_type == "follower.do" {
            let steps: Vec<Step> = payload::parse(message)?;
            return Ok(steps.iter().map(Step::action).collect());
        }
        let calls: Vec<Call> = payload::parse(message)?;
        let results: Vec<Value> = calls.iter().map(Call::run).collect();
        let draft = payload::draft("results", Some(Destination::Sender), &results)?;
        Ok(vec![Action::Send(draft)])
    }
}

signalbox_plugin::export!(Follower: connections, rooms, events);

//! A plugin that marks every message with its stamp: bytes that a test replaces in the component, which makes another
//! version without a build. A stamp that names a fault makes a version with that fault.
//!
//! The payload, an object, says what to do with a message:
//! - `refuse`: names; an instance configured with one of them refuses the message.
//! - `stamps`: each transformation and each handler adds `NAME:STAMP`.
//! - `retype`: names to event types; an instance with that name gives the message that type.
//! - `drop`: the name of the instance that drops it.
//! - `wait`: a handler answers only once the store has this key.
//! - `open`: a handler sets this key.
//! - `trap`: the `NAME:STAMP` of the instance that panics. An instance whose stamp begins with `STAMP-bad` always does.
//! - `slow`: the `NAME:STAMP` of the instance that takes 50 ms.

use std::{hint::black_box, thread::sleep, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use signalbox_plugin::{
    Action, Destination, Draft, Events, Message, Outcome, Plugin, Rejection, Transformation,
    Validation, config, payload, store,
};

/// Occurs once in the component, so that tests can find and replace it.
static STAMP: [u8; 16] = *b"STAMP-0000000000";

/// Reads the stamp at run time: the compiler must not fold the constant, because tests replace it.
fn stamp() -> &'static str {
    std::str::from_utf8(black_box(&STAMP)).unwrap_or("not text")
}

fn failed(reason: &str) -> Rejection {
    Rejection::new("failed", reason)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    name: String,
    handles: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "stamp".to_owned(),
            handles: Vec::new(),
        }
    }
}

struct Stamp(Config);

impl Stamp {
    fn read(&self, message: &Message) -> Result<Map<String, Value>, Rejection> {
        let payload: Map<String, Value> = payload::parse(message)?;
        let own = json!(self.mark_of());
        if payload.get("trap") == Some(&own) || stamp().starts_with("STAMP-bad") {
            panic!("this version panics at the message");
        }
        if payload.get("slow") == Some(&own) {
            sleep(Duration::from_millis(50));
        }
        Ok(payload)
    }

    fn mark_of(&self) -> String {
        format!("{}:{}", self.0.name, stamp())
    }

    fn mark(&self, payload: &mut Map<String, Value>) {
        let stamps = payload.entry("stamps").or_insert_with(|| json!([]));
        if let Value::Array(stamps) = stamps {
            stamps.push(json!(self.mark_of()));
        }
    }

    fn draft(message: &Message, payload: Map<String, Value>) -> Draft {
        Draft {
            event_type: message.event_type.clone(),
            destination: message.destination.clone(),
            payload: Value::from(payload).to_string(),
        }
    }
}

impl Plugin for Stamp {
    fn init(text: &str) -> Result<Self, String> {
        match stamp() {
            "STAMP-init-panic" => panic!("this version panics in init"),
            "STAMP-init-refus" => Err("this version refuses every configuration".to_owned()),
            _ => Ok(Self(config::parse(text)?)),
        }
    }

    fn self_test(&self) -> Result<(), String> {
        match stamp() {
            "STAMP-test-panic" => panic!("this version panics in its self-test"),
            "STAMP-test-fails" => Err("this version does not pass its self-test".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Validation for Stamp {
    fn validate(&self, message: &Message) -> Result<(), Rejection> {
        let payload = self.read(message)?;
        let refuse = payload.get("refuse").and_then(Value::as_array);
        if refuse.is_some_and(|names| names.contains(&json!(self.0.name))) {
            return Err(Rejection::new(
                "refused",
                format!("{} refuses it", self.0.name),
            ));
        }
        Ok(())
    }
}

impl Transformation for Stamp {
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection> {
        let mut payload = self.read(message)?;
        if payload.get("drop") == Some(&json!(self.0.name)) {
            return Ok(Outcome::Dropped);
        }
        let retype = payload
            .get("retype")
            .and_then(|types| types.get(&self.0.name)?.as_str())
            .map(str::to_owned);
        self.mark(&mut payload);
        let mut draft = Self::draft(message, payload);
        if let Some(event_type) = retype {
            draft.event_type = event_type;
        }
        Ok(Outcome::Changed(draft))
    }
}

impl Events for Stamp {
    fn event_types(&self) -> Vec<String> {
        self.0.handles.clone()
    }

    /// Tells the sender which version handled the message.
    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        let mut payload = self.read(message)?;
        if let Some(key) = payload.get("open").and_then(Value::as_str) {
            store::set(key, b"open", None).map_err(|_| failed("the store takes nothing"))?;
        }
        if let Some(key) = payload.get("wait").and_then(Value::as_str) {
            while store::get(key)
                .map_err(|_| failed("the wait was too long"))?
                .is_none()
            {
                sleep(Duration::from_millis(2));
            }
        }
        self.mark(&mut payload);
        payload.insert("handler".to_owned(), json!(self.0.name));
        let draft = Draft {
            destination: Some(Destination::Sender),
            ..Self::draft(message, payload)
        };
        Ok(vec![Action::Send(draft)])
    }
}

signalbox_plugin::export!(Stamp: validation, transformation, events);

//! The smallest useful plugin: it refuses notes that are too long, turns `:)` in them into a face, and answers
//! `hello.wave` with a greeting.

use serde::Deserialize;
use signalbox_plugin::{
    Action, Events, Message, Outcome, Plugin, Rejection, Transformation, Validation, config,
    export, payload,
};

/// The plugin. Its only state is its configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    #[serde(default = "hello")]
    greeting: String,
}

fn hello() -> String {
    "Hello".to_owned()
}

impl Plugin for Hello {
    fn init(config: &str) -> Result<Self, String> {
        config::parse(config)
    }
}

impl Validation for Hello {
    fn validate(&self, message: &Message) -> Result<(), Rejection> {
        if message.event_type == "note" && payload::parse::<String>(message)?.len() > 280 {
            return Err(Rejection::new("too_long", "a note has at most 280 bytes"));
        }
        Ok(())
    }
}

impl Transformation for Hello {
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection> {
        if message.event_type != "note" || !message.payload.contains(":)") {
            return Ok(Outcome::Unchanged);
        }
        let note = payload::parse::<String>(message)?.replace(":)", "🙂");
        Ok(Outcome::Changed(message.with_payload(&note)?))
    }
}

impl Events for Hello {
    fn event_types(&self) -> Vec<String> {
        vec!["hello.wave".to_owned()]
    }

    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        let greeting = format!("{}, {}", self.greeting, message.sender);
        Ok(vec![Action::reply("hello.greeting", &greeting)?])
    }
}

export!(Hello: validation, transformation, events);

#[cfg(test)]
mod tests;

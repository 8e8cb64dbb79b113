//! A plugin with a validator, a transformer and a custom event type. The functions of the server are documented in
//! sdk/src/lib.rs, or with `cargo doc --open`.

use signalbox_plugin::{
    Action, Events, Message, Outcome, Plugin, Rejection, Transformation, Validation, export,
    payload,
};

struct MyPlugin;

impl Plugin for MyPlugin {
    /// Runs first in each instance. `config` is the plugin's configuration as JSON text.
    fn init(_config: &str) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Validation for MyPlugin {
    /// Called first. A refusal is sent to the sender, and the message goes no further.
    fn validate(&self, message: &Message) -> Result<(), Rejection> {
        if message.event_type == "note" && payload::parse::<String>(message)?.chars().count() > 280
        {
            return Err(Rejection::new(
                "too_long",
                "a note has at most 280 characters",
            ));
        }
        Ok(())
    }
}

impl Transformation for MyPlugin {
    /// Called next. Return "unchanged" if nothing changes: that is the fastest answer.
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection> {
        if message.event_type != "note" || !message.payload.contains(":)") {
            return Ok(Outcome::Unchanged);
        }
        let note = payload::parse::<String>(message)?.replace(":)", "🙂");
        Ok(Outcome::Changed(message.with_payload(&note)?))
    }
}

impl Events for MyPlugin {
    fn event_types(&self) -> Vec<String> {
        vec!["my-plugin.hello".to_owned()]
    }

    /// Answers the event types that are listed above, only to the sender.
    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
        let greeting = format!("Hello, {}", message.sender);
        Ok(vec![Action::reply("my-plugin.greeting", &greeting)?])
    }
}

// The interfaces that the component exports.
export!(MyPlugin: validation, transformation, events);

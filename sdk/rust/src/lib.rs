//! Write plugins for the Signalbox realtime server.
//!
//! A plugin is a type with a trait for each thing that it does, and one line that exports them:
//!
//! ```
//! use signalbox_plugin::{Message, Plugin, Rejection, Validation, payload};
//!
//! struct NoShouting;
//!
//! impl Plugin for NoShouting {
//!     fn init(_config: &str) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl Validation for NoShouting {
//!     fn validate(&self, message: &Message) -> Result<(), Rejection> {
//!         let text: &str = payload::parse(message)?;
//!         if text.ends_with('!') {
//!             return Err(Rejection::new("shouting", "say it without an exclamation mark"));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! signalbox_plugin::export!(NoShouting: validation);
//! # fn main() {}
//! ```
//!
//! Build it as a `cdylib` for `wasm32-wasip2`. Plugin logic is plain Rust: test it with `cargo test` as it is.

#[doc(hidden)]
pub mod bindings;
pub mod config;
mod export;
pub mod payload;

pub use bindings::imports::signalbox::plugin::{
    context, log, metrics, store,
    types::{Action, Client, Destination, Disconnection, Draft, Message, Outcome, Rejection},
};

impl Rejection {
    /// A refusal with a code for programs (1–64 of `a-z 0-9 _ . -`) and a reason for people.
    pub fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            reason: reason.into(),
        }
    }
}

/// A plugin, and how an instance of it starts.
pub trait Plugin: Sized + 'static {
    /// Makes the instance from the configured text, which is JSON; `{}` where nothing is configured.
    ///
    /// # Errors
    /// Why the configuration is wrong, in words for the operator. The version does not go live then.
    fn init(config: &str) -> Result<Self, String>;

    /// Proves that the plugin works, once for each version before it goes live.
    ///
    /// # Errors
    /// What does not work. The version does not go live then.
    fn self_test(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Says whether a message is fit to go on.
pub trait Validation: Plugin {
    /// # Errors
    /// The refusal that the client is told.
    fn validate(&self, message: &Message) -> Result<(), Rejection>;
}

/// Rewrites messages.
pub trait Transformation: Plugin {
    /// [`Outcome::Unchanged`] is the cheapest answer.
    ///
    /// # Errors
    /// The refusal that the client is told.
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection>;
}

/// Gives event types of its own a meaning.
pub trait Events: Plugin {
    /// The event types, or patterns such as `chat.*`, that this plugin answers.
    fn event_types(&self) -> Vec<String>;

    /// What is to be done about the message.
    ///
    /// # Errors
    /// The refusal that the client is told.
    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection>;
}

/// Follows connections.
pub trait Connections: Plugin {
    /// Runs before the connection gets its first message.
    ///
    /// # Errors
    /// The refusal that closes the connection.
    fn connected(&self, client: &Client) -> Result<Vec<Action>, Rejection>;

    /// The connection is gone: only messages to others have an effect.
    fn disconnected(&self, client: &Client, how: &Disconnection) -> Vec<Action>;
}

/// Decides who may be in a room.
pub trait Rooms: Plugin {
    /// # Errors
    /// The refusal that the client is told.
    fn authorize_join(&self, client: &Client, room: &str) -> Result<(), Rejection>;
}

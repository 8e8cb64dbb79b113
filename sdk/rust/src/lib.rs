//! Write plugins for the Signalbox realtime server in Rust.
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
//! Build it as a `cdylib` for `wasm32-wasip2`: what cargo makes is the component that the server loads.
//!
//! | trait | the plugin | called for |
//! | --- | --- | --- |
//! | [`Plugin`] | starts | each instance, and once to prove a version before it goes live |
//! | [`Validation`] | refuses messages | every message whose type the plugin's `events` describe |
//! | [`Transformation`] | rewrites or drops messages | the same |
//! | [`Events`] | gives event types a meaning | messages whose type is in `events` and in [`Events::event_types`] |
//! | [`Connections`] | follows clients as they come and go | every connection |
//! | [`Rooms`] | decides who may join | every join that a client asks for |
//! | [`Handover`] | carries its memory over to the next version | each swap of a plugin with `instances = "single"` |
//!
//! What a plugin may ask of the server is in [`log`], [`context`], [`store`] and [`metrics`].
//!
//! # What to keep in mind
//!
//! - The server calls an instance for one message at a time, so `&self` needs no locks. For state in memory use
//!   [`Cell`](std::cell::Cell) or [`RefCell`](std::cell::RefCell), and only for what may be lost: with
//!   `instances = "pool"` any of several instances may get the next call, and an instance goes away with its version, or
//!   when it fails. [`Handover`] carries the memory of a single instance over to the next version. What must last belongs
//!   into [`store`].
//! - A panic costs that call (its sender is told `plugin_failed`) and that instance, nothing else. Its text is in the
//!   server's log.
//! - Everything that is called from outside has a time limit, 10 ms of CPU by default, and a memory limit. Work that
//!   can be done once belongs into [`Plugin::init`].
//!
//! # Tests
//!
//! Plugin logic is plain Rust: `cargo test` runs it as it is. On the machine that builds it, the functions of [`log`],
//! [`context`], [`store`] and [`metrics`] are doubles that need no server, and [`testing`] makes messages and clients.

#[doc(hidden)]
pub mod bindings;
pub mod config;
mod export;
#[cfg(not(target_arch = "wasm32"))]
mod native;
pub mod payload;
pub mod testing;
mod values;

#[cfg(target_arch = "wasm32")]
pub use bindings::imports::signalbox::plugin::{context, log, metrics, store};
#[cfg(not(target_arch = "wasm32"))]
pub use native::{context, log, metrics, store};

pub use bindings::handover::exports::signalbox::plugin::handover::Snapshot;
pub use bindings::imports::signalbox::plugin::types::{
    Action, Client, Destination, Disconnection, Draft, Message, Outcome, Rejection,
};

/// A plugin, and how an instance of it starts.
///
/// ```
/// use serde::Deserialize;
/// use signalbox_plugin::{Plugin, config};
///
/// #[derive(Deserialize)]
/// #[serde(deny_unknown_fields, default)]
/// struct Greeter {
///     greeting: String,
/// }
///
/// impl Default for Greeter {
///     fn default() -> Self {
///         Self { greeting: "Hello".to_owned() }
///     }
/// }
///
/// impl Plugin for Greeter {
///     fn init(config: &str) -> Result<Self, String> {
///         config::parse(config)
///     }
///
///     fn self_test(&self) -> Result<(), String> {
///         if self.greeting.is_empty() {
///             return Err("the greeting is empty".to_owned());
///         }
///         Ok(())
///     }
/// }
///
/// assert!(Greeter::init("{}").is_ok());
/// assert!(Greeter::init(r#"{"greting":"Hi"}"#).is_err());
/// ```
pub trait Plugin: Sized + 'static {
    /// Makes the instance from the configured text, which is JSON; `{}` where nothing is configured. Runs once in each
    /// instance, before anything else: when a version is tried out, for the instances that are kept warm, and for each
    /// one that replaces an instance that failed. So it must do nothing that may happen only once.
    ///
    /// # Errors
    /// Why the configuration is wrong, in words for the operator. The version does not go live then.
    fn init(config: &str) -> Result<Self, String>;

    /// Proves that the plugin works, once for each version before it goes live, in an instance that serves nobody.
    /// The store that it sees is the live one.
    ///
    /// # Errors
    /// What does not work, in words for the log. The version does not go live then.
    fn self_test(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Says whether a message is fit to go on.
///
/// ```
/// # use signalbox_plugin::{Message, Plugin, Rejection, Validation, payload, testing};
/// # struct Short;
/// # impl Plugin for Short { fn init(_: &str) -> Result<Self, String> { Ok(Self) } }
/// impl Validation for Short {
///     fn validate(&self, message: &Message) -> Result<(), Rejection> {
///         let text: String = payload::parse(message)?;
///         if text.chars().count() > 5 {
///             return Err(Rejection::new("too_long", "five characters are enough"));
///         }
///         Ok(())
///     }
/// }
///
/// assert!(Short.validate(&testing::message("note", r#""hi""#)).is_ok());
/// let refused = Short.validate(&testing::message("note", r#""hello there""#));
/// assert_eq!(refused.unwrap_err().code, "too_long");
/// ```
pub trait Validation: Plugin {
    /// Runs for every message whose type the plugin's `events` describe, before any plugin transforms it. Built-in
    /// types such as `join` never come here.
    ///
    /// # Errors
    /// The refusal that the client is told; the message goes no further.
    fn validate(&self, message: &Message) -> Result<(), Rejection>;
}

/// Rewrites messages.
///
/// ```
/// # use signalbox_plugin::{Message, Outcome, Plugin, Rejection, Transformation, payload, testing};
/// # struct Smile;
/// # impl Plugin for Smile { fn init(_: &str) -> Result<Self, String> { Ok(Self) } }
/// impl Transformation for Smile {
///     fn transform(&self, message: &Message) -> Result<Outcome, Rejection> {
///         let text: String = payload::parse(message)?;
///         if !text.contains(":)") {
///             return Ok(Outcome::Unchanged);
///         }
///         Ok(Outcome::Changed(message.with_payload(&text.replace(":)", "🙂"))?))
///     }
/// }
///
/// let Ok(Outcome::Changed(draft)) = Smile.transform(&testing::message("note", r#""hi :)""#)) else { panic!() };
/// assert_eq!(draft.payload, r#""hi 🙂""#);
/// ```
pub trait Transformation: Plugin {
    /// Runs after all validators, on what the transformers before it made. [`Outcome::Unchanged`] is the cheapest
    /// answer: nothing is copied back.
    ///
    /// # Errors
    /// The refusal that the client is told; the message goes no further.
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection>;

    /// [`Validation::validate`], then [`Transformation::transform`]: what the server asks a plugin with both where no other
    /// plugin comes between them. Write your own where the two would do something twice, such as parsing the payload.
    /// It must answer as they do, because both ways of asking are used.
    ///
    /// # Errors
    /// The refusal that the client is told; the message goes no further.
    fn screen(&self, message: &Message) -> Result<Outcome, Rejection>
    where
        Self: Validation,
    {
        self.validate(message)?;
        self.transform(message)
    }
}

/// Gives event types of its own a meaning.
///
/// ```
/// # use signalbox_plugin::{Action, Events, Message, Plugin, Rejection, testing};
/// # struct Echo;
/// # impl Plugin for Echo { fn init(_: &str) -> Result<Self, String> { Ok(Self) } }
/// impl Events for Echo {
///     fn event_types(&self) -> Vec<String> {
///         vec!["echo.say".to_owned()]
///     }
///
///     fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection> {
///         Ok(vec![Action::Deliver, Action::reply("echo.said", &message.sender)?])
///     }
/// }
///
/// let actions = Echo.handle(&testing::message("echo.say", "1"))?;
/// assert_eq!(actions[0], Action::Deliver);
/// # Ok::<(), Rejection>(())
/// ```
pub trait Events: Plugin {
    /// The event types, or patterns such as `chat.*`, that this plugin answers. Asked once for each version, after
    /// [`Plugin::init`]. The plugin's `events` in the configuration must describe them too, or it is never asked.
    fn event_types(&self) -> Vec<String>;

    /// What is to be done about the message, after all validators and transformers. Nothing is delivered but what the
    /// list says: an empty one means that the message ends here.
    ///
    /// # Errors
    /// The refusal that the client is told.
    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection>;
}

/// Follows connections.
///
/// ```
/// # use signalbox_plugin::{Action, Client, Connections, Destination, Disconnection, Draft, Plugin, Rejection, testing};
/// # struct Lobby;
/// # impl Plugin for Lobby { fn init(_: &str) -> Result<Self, String> { Ok(Self) } }
/// impl Connections for Lobby {
///     fn connected(&self, client: &Client) -> Result<Vec<Action>, Rejection> {
///         if client.user == "mallory" {
///             return Err(Rejection::new("banned", "you are not welcome here"));
///         }
///         Ok(vec![Action::Join("lobby".to_owned())])
///     }
///
///     fn disconnected(&self, client: &Client, _how: &Disconnection) -> Vec<Action> {
///         let gone = Draft::new("lobby.gone", Destination::room("lobby"), &client.user);
///         gone.map(Action::Announce).into_iter().collect()
///     }
/// }
///
/// assert_eq!(Lobby.connected(&testing::client("ann")), Ok(vec![Action::Join("lobby".to_owned())]));
/// assert!(Lobby.connected(&testing::client("mallory")).is_err());
/// ```
pub trait Connections: Plugin {
    /// Runs before the connection's first message is read and before anything is delivered to it, for every
    /// connection: `events` does not matter here.
    ///
    /// # Errors
    /// The refusal that closes the connection with 4502.
    fn connected(&self, client: &Client) -> Result<Vec<Action>, Rejection>;

    /// The connection is gone: only messages to others have an effect. Called for every connection that
    /// was admitted, also before this version was live, and for one that a later plugin refused; not where the process
    /// ends before.
    fn disconnected(&self, client: &Client, how: &Disconnection) -> Vec<Action>;
}

/// Decides who may be in a room.
///
/// ```
/// # use signalbox_plugin::{Client, Plugin, Rejection, Rooms, testing};
/// # struct Private;
/// # impl Plugin for Private { fn init(_: &str) -> Result<Self, String> { Ok(Self) } }
/// impl Rooms for Private {
///     fn authorize_join(&self, client: &Client, room: &str) -> Result<(), Rejection> {
///         match room.strip_prefix("private:") {
///             Some(owner) if owner != client.user => Err(Rejection::new("forbidden", "this room is private")),
///             _ => Ok(()),
///         }
///     }
/// }
///
/// assert!(Private.authorize_join(&testing::client("ann"), "private:ann").is_ok());
/// assert!(Private.authorize_join(&testing::client("ann"), "private:bob").is_err());
/// ```
pub trait Rooms: Plugin {
    /// Runs for each `join` of a client, also of a room that it is in already. An [`Action::Join`] of a plugin is
    /// not asked about.
    ///
    /// # Errors
    /// The refusal that the client is told.
    fn authorize_join(&self, client: &Client, room: &str) -> Result<(), Rejection>;
}

/// Carries the memory of the one instance of a plugin with `instances = "single"` over to the next version.
///
/// ```
/// use std::cell::Cell;
///
/// use signalbox_plugin::{Handover, Plugin, Snapshot};
///
/// struct Visitors(Cell<u32>);
///
/// impl Plugin for Visitors {
///     fn init(_: &str) -> Result<Self, String> {
///         Ok(Self(Cell::new(0)))
///     }
/// }
///
/// impl Handover for Visitors {
///     fn save(&self) -> Result<Snapshot, String> {
///         let data = self.0.get().to_le_bytes().to_vec();
///         Ok(Snapshot { format: 1, data })
///     }
///
///     fn restore(&self, snapshot: Snapshot) -> Result<(), String> {
///         match (snapshot.format, snapshot.data.try_into()) {
///             (1, Ok(bytes)) => Ok(self.0.set(u32::from_le_bytes(bytes))),
///             (format, _) => Err(format!("cannot read format {format}")),
///         }
///     }
/// }
///
/// let (old, new) = (Visitors::init("{}").unwrap(), Visitors::init("{}").unwrap());
/// old.0.set(7);
/// new.restore(old.save().unwrap()).unwrap();
/// assert_eq!(new.0.get(), 7);
/// ```
pub trait Handover: Plugin {
    /// The memory, in a form of the plugin's own: at most `handover_bytes_max` (4 MiB), and soon, because messages wait for
    /// it. No message is under way meanwhile. Where the swap fails after it, this instance goes on.
    ///
    /// # Errors
    /// Why it cannot be saved now, in words for the log. The swap is given up, and this instance goes on.
    fn save(&self) -> Result<Snapshot, String>;

    /// Takes over what the version before saved, which may be older or newer than this one: look at
    /// [`format`](Snapshot::format). Runs once, after [`Plugin::init`] and before any message.
    ///
    /// # Errors
    /// Why it cannot be read, in words for the log. The version does not go live, and the one before goes on.
    fn restore(&self, snapshot: Snapshot) -> Result<(), String>;
}

/// The examples of the guide and of the READMEs are compiled and run as tests.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../README.md")]
    struct OfTheCrate;
    #[doc = include_str!("../../../README.md")]
    struct OfTheProject;
    #[doc = include_str!("../../../docs/plugins.md")]
    struct Plugins;
    #[doc = include_str!("../../../examples/hello-plugin/README.md")]
    struct Hello;
}

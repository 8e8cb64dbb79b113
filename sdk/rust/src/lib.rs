//! Write plugins for the Signalbox realtime server in Rust.
//!
//! A plugin is a type that implements a trait for each of its tasks, and one line that exports them:
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
//! Build it as a `cdylib` for `wasm32-wasip2`: cargo's output is the component that the server loads.
//!
//! | trait | the plugin | called for |
//! | --- | --- | --- |
//! | [`Plugin`] | starts | each instance, and once to test a version before it goes live |
//! | [`Validation`] | refuses messages | every message whose type the plugin's `events` cover |
//! | [`Transformation`] | rewrites or drops messages | every message whose type the plugin's `events` cover |
//! | [`Events`] | handles custom event types | messages whose type is in `events` and in [`Events::event_types`] |
//! | [`Requests`] | answers requests with data | messages whose type is in `events` and in [`Requests::request_types`] |
//! | [`Connections`] | tracks connections as they open and close | every connection |
//! | [`Rooms`] | decides which clients may join a room | every `join` of a client |
//! | [`Membership`] | tracks the members of rooms | every connection that joins or leaves a room |
//! | [`Handover`] | carries its memory over to the next version | each swap of a plugin with `instances = "single"` |
//!
//! The functions that a plugin can call on the server are in [`log`], [`context`], [`store`], [`room_state`] and [`metrics`].
//!
//! # Keep in mind
//!
//! - The server calls an instance for one message at a time, so `&self` needs no locks. For state in memory use
//!   [`Cell`](std::cell::Cell) or [`RefCell`](std::cell::RefCell), and only for state that may be lost: with
//!   `instances = "pool"` any of several instances may get the next call, and an instance is discarded with its
//!   version, or when it fails. [`Handover`] carries the memory of a single instance over to the next version. Put
//!   state that must last into [`store`].
//! - A panic fails only the current call (the sender gets `plugin_failed`) and ends only its instance. The panic message
//!   is in the server's log.
//! - Every call from the server has a time limit, 10 ms of CPU by default, and a memory limit. Do work that is needed
//!   only once in [`Plugin::init`].
//!
//! # Tests
//!
//! Plugin logic is plain Rust, so `cargo test` can run it directly. In a native build, the functions of [`log`],
//! [`context`], [`store`], [`room_state`] and [`metrics`] are test doubles that need no server, and [`testing`] creates messages,
//! clients and rooms.

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
pub use bindings::imports::signalbox::plugin::{context, log, metrics, room_state, store};
#[cfg(not(target_arch = "wasm32"))]
pub use native::{context, log, metrics, room_state, store};

pub use bindings::handover::exports::signalbox::plugin::handover::Snapshot;
pub use bindings::imports::signalbox::plugin::types::{
    Action, Client, Destination, Disconnection, Draft, Message, Outcome, Rejection,
};
pub use bindings::requests::exports::signalbox::plugin::requests::Reply;

/// A plugin and the start of its instances.
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
    /// Creates the instance from the plugin's configuration as JSON text, or from `{}` if nothing is configured. Called
    /// once in each instance, before anything else: when a version is tested, for the instances that are kept ready,
    /// and for each instance that replaces a failed one. So it must be safe to repeat.
    ///
    /// # Errors
    /// Returns a text for the operator that says why the configuration is wrong. The version then does not go live.
    fn init(config: &str) -> Result<Self, String>;

    /// Tests that the plugin works. Called once for each version before it goes live, in an instance that gets no
    /// messages. It uses the live store.
    ///
    /// # Errors
    /// Returns a text for the log that says what does not work. The version then does not go live.
    fn self_test(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Accepts or refuses messages.
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
    /// Called for every message whose type the plugin's `events` cover, before any plugin transforms it. Never called
    /// for built-in types such as `join`.
    ///
    /// # Errors
    /// Returns the rejection that the client gets; the message goes no further.
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
    /// Called after all validators, with the changes of earlier transformers. [`Outcome::Unchanged`] is the cheapest
    /// answer: nothing is copied back.
    ///
    /// # Errors
    /// Returns the rejection that the client gets; the message goes no further.
    fn transform(&self, message: &Message) -> Result<Outcome, Rejection>;

    /// Calls [`Validation::validate`], then [`Transformation::transform`]. The server calls it instead of the two if no
    /// other plugin comes between them. Override it if the two would do the same work twice, such as parsing the
    /// payload. It must return the same results as they do, because the server uses both ways.
    ///
    /// # Errors
    /// Returns the rejection that the client gets; the message goes no further.
    fn screen(&self, message: &Message) -> Result<Outcome, Rejection>
    where
        Self: Validation,
    {
        self.validate(message)?;
        self.transform(message)
    }
}

/// Handles custom event types.
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
    /// The event types, or patterns such as `chat.*`, that this plugin handles. Called once for each version, after
    /// [`Plugin::init`]. The plugin's `events` in the configuration must cover them too, otherwise the plugin does not
    /// get them.
    fn event_types(&self) -> Vec<String>;

    /// Returns the actions for a message. Called after all validators and transformers. Only these actions happen: with
    /// an empty list the message is not delivered.
    ///
    /// # Errors
    /// Returns the rejection that the client gets.
    fn handle(&self, message: &Message) -> Result<Vec<Action>, Rejection>;
}

/// Answers requests: messages whose sender waits for data.
///
/// ```
/// # use signalbox_plugin::{Message, Plugin, Rejection, Reply, Requests, payload, testing};
/// # struct Sums;
/// # impl Plugin for Sums { fn init(_: &str) -> Result<Self, String> { Ok(Self) } }
/// impl Requests for Sums {
///     fn request_types(&self) -> Vec<String> {
///         vec!["sum.of".to_owned()]
///     }
///
///     fn respond(&self, message: &Message) -> Result<Reply, Rejection> {
///         let numbers: Vec<i64> = payload::parse(message)?;
///         Reply::new(&numbers.iter().sum::<i64>())
///     }
/// }
///
/// let reply = Sums.respond(&testing::message("sum.of", "[1, 2, 3]"))?;
/// assert_eq!(reply.data, "6");
/// # Ok::<(), Rejection>(())
/// ```
pub trait Requests: Plugin {
    /// The types of the requests, or patterns such as `sum.*`, that this plugin answers. Called once for each version, after
    /// [`Plugin::init`]. A type has one handler or one responder, so it must not be in [`Events::event_types`] as well. The
    /// plugin's `events` in the configuration must cover them too, otherwise the plugin does not get them.
    fn request_types(&self) -> Vec<String>;

    /// Returns the data for the sender, and actions, which are carried out before. Called after all validators and
    /// transformers. A client gets the data in its `ack`, if it asked for one; a backend gets it in the answer of the API.
    ///
    /// # Errors
    /// Returns the rejection that the sender gets.
    fn respond(&self, message: &Message) -> Result<Reply, Rejection>;
}

/// Tracks connections as they open and close.
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
    /// Called before the connection's first message is read and before anything is delivered to it, for every
    /// connection, regardless of `events`.
    ///
    /// # Errors
    /// Returns a rejection, which closes the connection with 4502.
    fn connected(&self, client: &Client) -> Result<Vec<Action>, Rejection>;

    /// Called after the connection has closed: only messages to others still have an effect. Called for every connection
    /// that was admitted, even before this version was live, and for one that a later plugin refused. Not called if the
    /// process ends first.
    fn disconnected(&self, client: &Client, how: &Disconnection) -> Vec<Action>;
}

/// Decides which clients may join a room.
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
    /// Called for each `join` of a client, even if the client is already a member of the room, but not for an
    /// [`Action::Join`] of a plugin.
    ///
    /// # Errors
    /// Returns the rejection that the client gets.
    fn authorize_join(&self, client: &Client, room: &str) -> Result<(), Rejection>;
}

/// Tracks the members of rooms.
///
/// ```
/// # use signalbox_plugin::{Action, Client, Destination, Draft, Membership, Plugin, testing};
/// # struct Doorbell;
/// # impl Plugin for Doorbell { fn init(_: &str) -> Result<Self, String> { Ok(Self) } }
/// impl Membership for Doorbell {
///     fn joined(&self, client: &Client, room: &str, connections: u32) -> Vec<Action> {
///         if connections > 1 {
///             return Vec::new();
///         }
///         let rings = Draft::new("doorbell", Destination::room(room), &client.user);
///         rings.map(Action::Announce).into_iter().collect()
///     }
///
///     fn left(&self, _client: &Client, _room: &str, _connections: u32) -> Vec<Action> {
///         Vec::new()
///     }
/// }
///
/// assert_eq!(Doorbell.joined(&testing::client("ann"), "lobby", 1).len(), 1);
/// assert_eq!(Doorbell.joined(&testing::client("ann"), "lobby", 2).len(), 0);
/// ```
pub trait Membership: Plugin {
    /// Called after a connection has become a member of `room`, however that came about. `connections` is the number of the
    /// user's connections on this node that are members now: 1 if the user was not a member before. Joins and leaves among the
    /// returned actions do not lead to further calls.
    fn joined(&self, client: &Client, room: &str, connections: u32) -> Vec<Action>;

    /// Called after a connection has left `room`, or has closed. `connections` is the number of the user's connections on this
    /// node that are still members: 0 if the user is no member any more. After a connection has closed, only messages to others
    /// have an effect. Not called if the process ends first.
    fn left(&self, client: &Client, room: &str, connections: u32) -> Vec<Action>;
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
    /// Returns the memory in a format that the plugin defines: at most `handover_bytes_max` (4 MiB), and quickly,
    /// because messages wait for it. No other call is in progress. If the swap fails afterwards, this instance
    /// continues.
    ///
    /// # Errors
    /// Returns a text for the log that says why the memory cannot be saved now. The swap is cancelled, and this
    /// instance continues.
    fn save(&self) -> Result<Snapshot, String>;

    /// Restores the snapshot of the previous version, which may be older or newer than this one: check its
    /// [`format`](Snapshot::format). Called once, after [`Plugin::init`] and before any message.
    ///
    /// # Errors
    /// Returns a text for the log that says why the snapshot cannot be read. The version does not go live, and the
    /// previous one continues.
    fn restore(&self, snapshot: Snapshot) -> Result<(), String>;
}

/// Compiles and runs the examples of the Rust plugin guide and of the READMEs as tests.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../README.md")]
    struct OfTheCrate;
    #[doc = include_str!("../../../README.md")]
    struct OfTheProject;
    #[doc = include_str!("../../../docs/plugins/rust.md")]
    struct Rust;
    #[doc = include_str!("../../../examples/hello-plugin/README.md")]
    struct Hello;
}

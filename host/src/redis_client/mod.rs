//! Connections to Redis: what kind of Redis it is, where its master is, and commands that never hang.
//!
//! [`Endpoints`] is the configured addresses and how to connect to what is behind them: a single server, the master that
//! sentinels name, or a cluster. [`Commands`] holds the node's one link for commands, looks once a second whether all of
//! Redis answers on it, and makes a new one where it does not. Subscriptions want a connection of their own, which
//! [`Endpoints::subscriber`] makes.
//!
//! This module is a leaf: it knows nothing of routes, messages or plugins.

mod commands;
mod endpoints;
mod link;
mod login;
mod sentinel;
mod topology;

pub use commands::{Commands, Script, Unavailable};
pub use endpoints::{EndpointError, Endpoints, SubscriberConnection};
pub use login::LoginChanges;
pub use topology::{Topology, is_master};

//! Connections to Redis: its topology, its master, and commands that never hang.
//!
//! [`Endpoints`] has the configured addresses and connects to the servers behind them: a single server, the master that
//! sentinels name, or a cluster. [`Commands`] holds the node's one link for commands, checks once a second that all of
//! Redis answers on it, and replaces it if not. Subscriptions need a separate connection, which
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

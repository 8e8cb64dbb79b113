//! Real nodes, real sockets, real plugins.

mod actions;
mod admission;
mod any_frame;
mod auth;
mod chain;
mod cli;
mod closing;
mod drain;
mod guests;
mod harness;
mod heartbeat;
mod hostile;
mod http;
mod limits;
mod live_config;
mod logged;
mod neighbours;
mod process;
mod raw;
mod rooms;
mod runtime;
mod store;
mod structure;
mod subprotocol;
mod swap;
mod wire;

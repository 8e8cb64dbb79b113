//! Real nodes, real sockets, the real chat plugin.

mod any_frame;
mod auth;
mod cli;
mod closing;
mod drain;
mod harness;
mod heartbeat;
mod hostile;
mod http;
mod limits;
mod live_config;
mod process;
mod raw;
mod rooms;
mod structure;
mod subprotocol;
mod swap;
mod wire;

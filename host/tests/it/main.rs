//! Real nodes, real sockets, the real chat plugin.

mod deploy;
mod harness;
mod hostile;
mod limits;
mod redis;
mod structure;
mod swap;
mod wire;

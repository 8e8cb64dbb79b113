//! Real nodes, real sockets, the real chat plugin.

mod harness;
mod hostile;
mod limits;
mod swap;
mod wire;

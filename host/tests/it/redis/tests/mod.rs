//! That the Redis of the tests does what they take for granted.

mod cluster;
mod sentinel;
mod server;
mod websocket_app;

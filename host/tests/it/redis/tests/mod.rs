//! Checks the properties of the test Redis that other tests rely on.

mod cluster;
mod sentinel;
mod server;
mod websocket_app;

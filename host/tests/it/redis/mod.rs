//! Real Redis for the tests: a server, a cluster, sentinels, and a stand-in for the Go server that shares them.
//!
//! Everything listens on ports of its own on the loopback, keeps its files in a temporary folder, and is gone when its
//! value is dropped. Tests share none of it. `cargo xtask test` sees to it that `redis-server` is there.

mod cluster;
mod ports;
mod process;
mod sentinel;
mod server;
mod tests;
pub(crate) mod tls;
mod wait;
mod websocket_app;

pub(crate) use cluster::Cluster;
pub(crate) use ports::candidate as free_port;
pub(crate) use sentinel::Sentinels;
pub(crate) use server::{Options, Server, User};
pub(crate) use wait::until;
pub(crate) use websocket_app::WebsocketApp;

use std::time::Duration;

use signalbox::config::{RedisCompat, RedisConfig, RedisMode};

/// The configuration for the servers at `urls`, comma separated.
pub(crate) fn config(urls: &str, key_prefix: &str, command_timeout: Duration) -> RedisConfig {
    RedisConfig {
        urls: urls.split(',').map(str::to_owned).collect(),
        mode: RedisMode::Auto,
        sentinel_master: None,
        ca_file: None,
        compat: RedisCompat::None,
        key_prefix: key_prefix.to_owned(),
        command_timeout,
    }
}

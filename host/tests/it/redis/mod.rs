//! Real Redis for the tests: a server, a cluster, sentinels, and a stand-in for the Go server that shares Redis with
//! nodes.
//!
//! Each instance has separate ports on the loopback and a temporary folder, and ends when its value is dropped. Tests
//! do not share any of them. `cargo xtask test` makes sure that `redis-server` is installed.

mod cluster;
mod connections;
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

/// How long a master may seem dead before its replica takes over, if failover is allowed. On a busy machine a live master
/// can seem dead for as long; messages that were published to it in the meantime are lost.
const FAILOVER_AFTER: Duration = Duration::from_millis(1500);

/// The same time while failover is forbidden: longer than any test.
const NO_FAILOVER: Duration = Duration::from_mins(10);

/// The configuration for the servers at `urls`, separated by commas.
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

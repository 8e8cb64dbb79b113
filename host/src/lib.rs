//! Signalbox: a realtime WebSocket server that can be extended with WebAssembly plugins and changed while all clients
//! stay connected.
//!
//! The `signalbox` command is the usual way to run it. A program can also embed a server:
//!
//! ```
//! use std::path::Path;
//!
//! use signalbox::{Server, config::Config};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let toml = r#"
//!         [server]
//!         listen = "127.0.0.1:0"
//!         [auth]
//!         mode = "none"
//!     "#;
//!     let config = Config::parse(toml, Path::new("embedded.toml"), &Default::default())?;
//!     let server = Server::builder(config).start().await?;
//!     println!("clients connect to ws://{}/ws", server.address());
//!     // Serve for as long as your program runs. Then let the clients go:
//!     server.shut_down().await;
//!     Ok(())
//! }
//! ```
//!
//! # Layout
//!
//! Each layer is a crate, which depends only on those below it. This library gives them one name:
//!
//! - [`Server`], [`http`] and [`session`]: the server
//! - [`cluster_rollout`]: one plugin version on all nodes
//! - [`pipeline`]: the order in which plugins handle a message
//! - [`plugin`]: loads, runs and replaces plugins
//! - [`webhooks`]: events for backends
//! - [`router`]: messages to the connections of this node
//! - [`broker`]: messages between nodes
//! - [`auth`], [`websocket`], `cloudwatch` (a cargo feature, on by default), `redis_client` (part of the cargo feature
//!   `redis`, on by default)
//! - [`logging`], [`metrics`], [`trace`], [`supervise`]
//! - [`config`]: the configuration
//! - [`protocol`]: frames and names

pub use signalbox_auth as auth;
pub use signalbox_broker as broker;
#[cfg(feature = "cloudwatch")]
pub use signalbox_cloudwatch as cloudwatch;
pub use signalbox_cluster_rollout as cluster_rollout;
pub use signalbox_config as config;
pub use signalbox_pipeline as pipeline;
pub use signalbox_protocol as protocol;
#[cfg(feature = "redis")]
pub use signalbox_redis_client as redis_client;
pub use signalbox_router as router;
pub use signalbox_server::{Listeners, Server, ServerBuilder, Source, StartError};
pub use signalbox_server::{files, http, session};
pub use signalbox_telemetry::{error_chain, logging, metrics, supervise, trace};
pub use signalbox_webhooks as webhooks;
pub use signalbox_websocket as websocket;

/// Loads, runs and replaces plugins.
pub mod plugin {
    pub use signalbox_plugin_manager::*;
    pub use signalbox_plugin_runtime::*;
}

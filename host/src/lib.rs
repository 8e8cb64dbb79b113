//! Signalbox: a realtime WebSocket server that can be extended with WebAssembly plugins and changed while all clients
//! stay connected.
#![recursion_limit = "256"]

pub mod app;
pub mod auth;
pub mod broker;
pub mod cloudwatch;
pub mod cluster_rollout;
pub mod config;
pub mod error_chain;
pub mod files;
pub mod logging;
pub mod metrics;
pub mod pipeline;
pub mod plugin;
pub mod protocol;
pub mod redis_client;
pub mod router;
pub mod server;
pub mod session;
pub mod supervise;
pub mod token_bucket;
pub mod trace;
pub mod websocket;

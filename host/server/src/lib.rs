//! The server: a node listens on HTTP, upgrades requests to sessions, and passes their messages through the pipeline of
//! plugins to the router.

pub mod app;
pub mod files;
pub mod http;
pub mod session;
mod token_bucket;

//! The server: a node listens on HTTP, upgrades requests to sessions, and passes their messages through the pipeline of
//! plugins to the router.

mod app;
pub mod files;
pub mod http;
mod ids;
mod server;
pub mod session;
mod token_bucket;

pub use app::{Source, StartError};
pub use http::Listeners;
pub use ids::IdSource;
pub use server::{Server, ServerBuilder};

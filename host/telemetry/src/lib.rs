//! Metrics, logging, tracing and task supervision of Signalbox.

pub mod error_chain;
pub mod logging;
pub mod metrics;
pub mod supervise;
mod threads;
pub mod trace;

pub use threads::thread_number;

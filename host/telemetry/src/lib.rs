//! Metrics, logging, tracing and task supervision of Signalbox.

pub mod error_chain;
pub mod logging;
pub mod metrics;
pub mod supervise;
mod threads;
#[cfg(feature = "otlp")]
pub mod trace;
#[cfg(not(feature = "otlp"))]
#[path = "no_trace.rs"]
pub mod trace;

pub use threads::thread_number;

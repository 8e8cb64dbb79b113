//! The log of the process: where lines go, which of them, and how often one may repeat.
//!
//! Lines go to standard error, as text or JSON, at the levels that `RUST_LOG` names. What repeats is heard once in a
//! while, with how often it was left out ([`Repeats`]): no client and no broker can fill the log.
//!
//! This module is a leaf.

mod repeats;

use std::{
    io::{self, IsTerminal},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use repeats::Repeats;

/// How often it is said what was left out.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// The log of this process, once it was started.
#[derive(Debug)]
pub struct Log {
    repeats: Arc<Repeats>,
    json: bool,
}

impl Log {
    /// Starts it for the whole process: JSON with `LOG_FORMAT=json`, else text, coloured on a terminal; levels by
    /// `RUST_LOG`, else `info`. To be called once.
    pub fn start() -> Self {
        let json = std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json");
        let repeats = Arc::new(Repeats::default());
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let lines = fmt::layer().with_writer(io::stderr);
        let lines = if json {
            // The list holds the innermost span too.
            let lines = lines.json().flatten_event(true).with_current_span(false);
            lines.boxed()
        } else {
            lines.with_ansi(io::stderr().is_terminal()).boxed()
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(repeats.clone().layer())
            .with(lines)
            .init();
        Self { repeats, json }
    }

    /// Whether lines are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Runs `work` to its end, and says meanwhile what was left out.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(TELL_INTERVAL) => self.repeats.tell(),
            }
        }
    }
}

/// At the end of the process what is left to say is said.
impl Drop for Log {
    fn drop(&mut self) {
        self.repeats.tell();
    }
}

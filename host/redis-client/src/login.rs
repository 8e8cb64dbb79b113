//! Decides whether a connection must log in again, because user or password changed.

use redis::ConnectionInfo;
use tokio::sync::watch;
use tracing::{info, warn};

/// Changes of the login, for one connection.
pub struct LoginChanges {
    infos: watch::Receiver<Vec<ConnectionInfo>>,
    is_due: bool,
    /// Why the last attempt failed.
    last_said: Option<String>,
}

impl LoginChanges {
    pub(super) fn of(infos: watch::Receiver<Vec<ConnectionInfo>>) -> Self {
        Self {
            infos,
            is_due: false,
            last_said: None,
        }
    }

    /// Must be called before a connection is made: the connection uses the login of this moment.
    pub fn begin(&mut self) {
        self.infos.mark_unchanged();
        self.is_due = false;
        self.last_said = None;
    }

    /// Waits for the next change. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.infos.changed().await.is_err() {
            // Nothing is left that could change it.
            std::future::pending::<()>().await;
        }
        self.is_due = true;
    }

    /// Whether the connection has not logged in since the last change.
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Must be called with the result of an attempt to log in. A failed one stays due.
    pub fn record_result<E: std::fmt::Display>(&mut self, connection: &str, result: Result<(), E>) {
        match result {
            Ok(()) => {
                self.is_due = false;
                self.last_said = None;
                info!(connection, "logged in to Redis again (redis.url)");
            }
            Err(error) => {
                let reason = error.to_string();
                if self.last_said.as_ref() != Some(&reason) {
                    warn!(
                        connection,
                        reason,
                        "Redis does not accept the changed user and password (redis.url); the connection keeps the \
                         old ones, and tries again every second"
                    );
                }
                self.last_said = Some(reason);
            }
        }
    }
}

//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::harness::PATIENCE;

/// Pause between two checks, so that the observed process makes progress even on a machine with few processors.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `check` until it returns something. Panics with `what` if that takes too long.
pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let polling = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, polling)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

//! Waiting for a condition.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::harness::PATIENCE;

/// Time between two looks: what is looked at must be able to get on, on a machine with few processors too.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until there is something, and panics with `what` was waited for when it takes too long.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

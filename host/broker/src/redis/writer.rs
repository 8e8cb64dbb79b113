//! The one writer of this server's routes.

use std::{future, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::info;

use super::{
    health::{Duty, Health},
    routes::RouteWriter,
};

/// Pause after a batch that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How often all routes are written again, so that no error lasts. Half of the time for which `websocket-app` believes that a
/// user is online.
const RENEW_INTERVAL: Duration = Duration::from_secs(30);

/// Writes until it is aborted, on links on which this server is `leased`.
pub(super) async fn write(
    routes: &RouteWriter,
    health: &Health,
    leased: &mut watch::Receiver<u64>,
) {
    let mut link = 0;
    let mut renew_at = Instant::now() + RENEW_INTERVAL;
    loop {
        if leased.wait_for(|link| *link != 0).await.is_err() {
            return;
        }
        let now = *leased.borrow_and_update();
        if now != link {
            if link != 0 {
                info!("a new connection to Redis; all routes are written again");
            }
            link = now;
            routes.assert_all();
        }
        if !routes.is_idle() {
            match routes.write_batch().await {
                Ok(()) => {
                    if routes.is_idle() {
                        health.done(Duty::Routes);
                        routes.restored();
                    }
                }
                Err(error) => {
                    health.late(Duty::Routes, &error.to_string());
                    sleep(RETRY_PAUSE).await;
                }
            }
            continue;
        }
        tokio::select! {
            () = routes.woken() => {}
            _ = leased.changed() => {}
            () = until(routes.confirm_at()) => routes.confirm(),
            () = sleep_until(renew_at) => {
                renew_at = Instant::now() + RENEW_INTERVAL;
                routes.renew_routes();
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}

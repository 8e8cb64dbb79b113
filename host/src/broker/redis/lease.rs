//! The lease of this server: as long as it holds, others send here.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::warn;

use super::{keys::Keys, routes::Routes};
use crate::redis_client::Commands;

/// How long a lease holds without being renewed.
const LEASE: Duration = Duration::from_secs(15);

/// How often it is renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);

/// Pause after a renewal that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Renews the lease until it is aborted, at once whenever there is a new link. A lease that had run out, or a Redis that
/// was emptied, means that others may have taken this server's routes away: all of them are written anew.
pub(super) async fn keep(commands: Commands, keys: Arc<Keys>, routes: Arc<Routes>) {
    let mut links = commands.links();
    let lease = keys.lease(keys.own_id());
    let mut held = false;
    loop {
        if links.wait_for(|link| *link != 0).await.is_err() {
            return;
        }
        let pause = match renew(&commands, &lease).await {
            Ok(was_there) => {
                if held && !was_there {
                    warn!("the lease of this server had run out, or Redis was emptied; all routes are written anew");
                    routes.assert_all();
                }
                held = true;
                RENEW_INTERVAL
            }
            Err(_) => RETRY_PAUSE,
        };
        tokio::select! {
            _ = links.changed() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Returns whether it was there before.
async fn renew(commands: &Commands, lease: &str) -> Result<bool, crate::redis_client::Unavailable> {
    // Two commands rather than SET ... GET, which Redis knows only since 6.2.
    let was_there: bool = commands.run(redis::cmd("EXISTS").arg(lease)).await?;
    let mut set = redis::cmd("SET");
    set.arg(lease).arg(1).arg("PX").arg(LEASE.as_millis() as u64);
    commands.run::<()>(&set).await?;
    Ok(was_there)
}

//! The lease of this server. Others send here as long as it is valid.

use std::time::Duration;

use signalbox_redis_client::{Commands, Unavailable};
use tokio::{sync::watch, time::sleep};
use tracing::warn;

use super::{
    health::{Duty, Health},
    keys::{KeyNames, LEASE_VALUE},
    nodes,
    routes::RouteWriter,
};

/// How long a lease is valid without being renewed.
pub(super) const LEASE: Duration = Duration::from_secs(15);

/// How often it is renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);

/// Pause after a renewal that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Renews the lease until it is aborted, at once after each new link, and sets `leased` to the number of the link on which
/// it is valid, or to 0. Routes are written only while it is valid: a reader removes a route without a lease.
///
/// If the lease had expired, or Redis was emptied, others may have removed this server's routes. All of them are written
/// again then.
pub(super) async fn keep(
    commands: &Commands,
    keys: &KeyNames,
    routes: &RouteWriter,
    health: &Health,
    leased: &watch::Sender<u64>,
) {
    let mut links = commands.links();
    let lease = keys.lease(keys.own_id());
    let mut held = false;
    loop {
        let link = *links.borrow_and_update();
        if link == 0 {
            leased.send_replace(0);
        }
        let pause = match renew(commands, &lease).await {
            Ok(was_there) => {
                if held && !was_there {
                    warn!(
                        "the lease of this server had expired, or Redis was emptied; all routes are written again"
                    );
                    routes.assert_all();
                }
                held = true;
                leased.send_replace(link);
                health.done(Duty::Lease);
                nodes::announce(commands, keys).await;
                RENEW_INTERVAL
            }
            Err(error) => {
                health.late(Duty::Lease, &error.to_string());
                RETRY_PAUSE
            }
        };
        tokio::select! {
            changed = links.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

/// Returns whether it existed before.
async fn renew(commands: &Commands, lease: &str) -> Result<bool, Unavailable> {
    // Two commands rather than SET ... GET, which Redis knows only since 6.2.
    let was_there: bool = commands.run(redis::cmd("EXISTS").arg(lease)).await?;
    let mut set = redis::cmd("SET");
    set.arg(lease)
        .arg(LEASE_VALUE)
        .arg("PX")
        .arg(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX));
    commands.run::<()>(&set).await?;
    Ok(was_there)
}

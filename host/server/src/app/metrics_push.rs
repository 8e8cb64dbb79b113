//! Pushes metrics to CloudWatch, if this build can.

use std::sync::Arc;

#[cfg(feature = "cloudwatch")]
pub(super) use signalbox_cloudwatch::Pusher;
use signalbox_config::Config;

use crate::session::Services;

/// Starts to push metrics; `None` if the configuration does not ask for it.
#[cfg(feature = "cloudwatch")]
pub(super) fn start(config: &Config, services: &Arc<Services>) -> Option<Pusher> {
    use futures_util::FutureExt;
    use signalbox_telemetry::metrics::readings;

    let cloudwatch = config.cloudwatch.clone()?;
    let of = services.clone();
    let read = Arc::new(move || {
        let services = of.clone();
        async move { readings::read(&services.metrics, &services.status().await) }.boxed()
    });
    // The node ID without the nonce of this start, so that a restarted server continues the same graphs.
    let node = &config.server.node_id;
    let metrics = services.metrics.clone();
    Some(Pusher::start(cloudwatch, node, metrics, read))
}

/// Never exists: this build has no CloudWatch.
#[cfg(not(feature = "cloudwatch"))]
pub(super) enum NoPusher {}

#[cfg(not(feature = "cloudwatch"))]
pub(super) use NoPusher as Pusher;

#[cfg(not(feature = "cloudwatch"))]
impl NoPusher {
    pub(super) async fn finish(self, _by: tokio::time::Instant) {
        match self {}
    }
}

/// Never starts anything: [`features::check`](super::features::check) has refused configurations that ask for it.
#[cfg(not(feature = "cloudwatch"))]
pub(super) fn start(_: &Config, _: &Arc<Services>) -> Option<Pusher> {
    None
}

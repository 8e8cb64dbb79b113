//! Pushes metrics to CloudWatch, if this build can.

use std::sync::Arc;

#[cfg(feature = "cloudwatch")]
pub(super) use signalbox_cloudwatch::Pusher;
use signalbox_config::Config;

use super::StartError;
use crate::session::Services;

/// Starts to push metrics; `None` if the configuration does not ask for it.
///
/// # Errors
/// Returns [`StartError::NotBuiltIn`] if it does, and this build has no CloudWatch.
#[cfg(feature = "cloudwatch")]
pub(super) fn start(
    config: &Config,
    services: &Arc<Services>,
) -> Result<Option<Pusher>, StartError> {
    use futures_util::FutureExt;
    use signalbox_telemetry::metrics::readings;

    let Some(cloudwatch) = config.cloudwatch.clone() else {
        return Ok(None);
    };
    let of = services.clone();
    let read = Arc::new(move || {
        let services = of.clone();
        async move { readings::read(&services.metrics, &services.status().await) }.boxed()
    });
    // The node ID without the nonce of this start, so that a restarted server continues the same graphs.
    let node = &config.server.node_id;
    let metrics = services.metrics.clone();
    Ok(Some(Pusher::start(cloudwatch, node, metrics, read)))
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

/// Refuses a configuration that asks for CloudWatch.
///
/// # Errors
/// Returns [`StartError::NotBuiltIn`].
#[cfg(not(feature = "cloudwatch"))]
pub(super) fn start(config: &Config, _: &Arc<Services>) -> Result<Option<Pusher>, StartError> {
    match config.cloudwatch {
        Some(_) => Err(StartError::NotBuiltIn {
            key: "cloudwatch.enabled",
            feature: "cloudwatch",
        }),
        None => Ok(None),
    }
}

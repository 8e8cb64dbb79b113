//! A call's right to an instance, and what happens to the place in the pool if the instance fails.

use std::{pin::pin, sync::Arc, task::Poll, time::Instant};

use tokio::time::timeout_at;
use tracing::warn;

use super::{
    host::HostState,
    instance::{CallError, Instance},
    pool::Checkout,
    version::PluginVersion,
};
use crate::metrics::FailureKind;

/// A place in the pool whose instance is lent out. If the lease is dropped without being given back, the instance is
/// lost: a trap poisons an instance, and so does a call that was abandoned half-way.
pub(super) struct Lease<'a> {
    version: &'a Arc<PluginVersion>,
    ready_since: Option<Instant>,
}

impl<'a> Lease<'a> {
    /// Takes an idle instance; `None` if the caller must wait for one or start one.
    pub(super) fn take(version: &'a Arc<PluginVersion>) -> Option<(Self, Instance)> {
        let instance = version.pool.take_now()?;
        let lease = Self {
            version,
            ready_since: None,
        };
        Some((lease, instance))
    }

    /// Takes an instance, or starts one. If all are busy, waits until `deadline` at the latest.
    ///
    /// # Errors
    /// Returns [`CallError`] if no instance becomes free in time, if too many calls wait already, or if no instance
    /// starts.
    pub(super) async fn wait(
        version: &'a Arc<PluginVersion>,
        deadline: Instant,
    ) -> Result<(Self, Instance), CallError> {
        let mut take = pin!(version.pool.take());
        let (place, waited) = match futures_util::poll!(take.as_mut()) {
            Poll::Ready(place) => (place, false),
            Poll::Pending => match timeout_at(deadline.into(), take).await {
                Ok(place) => (place, true),
                Err(_) => {
                    let busy = "all instances are busy (`instances_max`)";
                    return Err(CallError::new(FailureKind::Unavailable, busy));
                }
            },
        };
        let lease = |ready_since| Self {
            version,
            ready_since,
        };
        match place {
            Checkout::Warm(instance) => Ok((lease(waited.then(Instant::now)), instance)),
            Checkout::Empty => {
                // Gives the place back if no instance starts.
                let mut lease = lease(None);
                let instance = version.start_instance().await?;
                lease.ready_since = Some(Instant::now());
                Ok((lease, instance))
            }
            Checkout::Refused => {
                let full = "too many calls wait for an instance already";
                Err(CallError::new(FailureKind::Unavailable, full))
            }
        }
    }

    /// When the instance became available; `None` if it was available at once.
    pub(super) fn ready_since(&self) -> Option<Instant> {
        self.ready_since
    }

    /// Ends the lease for good: the version no longer serves, so it needs no other instance.
    pub(super) fn retire(self) {
        self.version.pool.give_up();
        std::mem::forget(self);
    }

    /// Ends the lease after a successful call, and returns the instance to the pool.
    pub(super) fn give_back(self, mut instance: Instance) {
        HostState::end(&mut instance.guest().store);
        self.version.pool.give_back(instance);
        std::mem::forget(self);
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.version.pool.give_up();
        let version = self.version.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = version.warm_up().await {
                    let (plugin, label) = (version.name(), version.label());
                    version.shared.log.write_host(|| {
                        warn!(
                            plugin,
                            version = label,
                            "a new instance does not start: {error}"
                        )
                    });
                }
            });
        }
    }
}

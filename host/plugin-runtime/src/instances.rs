//! The instances of one version, and how calls borrow them.

use std::{
    pin::pin,
    sync::{Arc, Once, Weak},
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use signalbox_config::PluginConfig;
use signalbox_telemetry::{metrics::FailureKind, supervise};
use tokio::time::{sleep, timeout_at};
use tracing::warn;
use wasmtime::component::InstancePre;

use super::{
    call_error::CallError,
    host::{HostState, VersionContext},
    instance::{ExportIndices, Instance},
    pool::{Checkout, Pool},
};

/// The instances of one version: those that run, and everything that is needed to start another one.
pub(super) struct Instances {
    /// The first digits of the component's hash, for the log.
    pub(super) label: String,
    pub(super) config: Arc<PluginConfig>,
    pub(super) component: InstancePre<HostState>,
    pub(super) indices: ExportIndices,
    pub(super) shared: Arc<VersionContext>,
    pub(super) pool: Pool<Instance>,
    /// The number of instances that are kept ready.
    pub(super) warm: usize,
    /// Ensures that the task that releases idle instances beyond that number is started only once.
    pub(super) looked_after: Once,
}

impl Instances {
    /// Starts instances ahead of need, up to the number that is kept ready.
    ///
    /// # Errors
    /// Returns the [`CallError`] of the first instance that does not start.
    pub(super) async fn warm_up(self: &Arc<Self>) -> Result<(), CallError> {
        self.looked_after.call_once(|| self.look_after());
        while self.pool.take_for_refill(self.warm) {
            match self.start().await {
                Ok(instance) => self.pool.give_back(instance),
                Err(error) => {
                    self.pool.give_up();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Releases instances that are no longer used, as long as the version exists.
    fn look_after(self: &Arc<Self>) {
        let (instances, every) = (Arc::downgrade(self), self.config.limits.instances_idle_time);
        let server = &self.shared.server;
        supervise::spawn("idle instances", server, instances, move |instances| {
            shrink(instances, every).boxed()
        });
    }

    async fn start(&self) -> Result<Instance, CallError> {
        let config = &self.config.config_json;
        let start = Instance::start(&self.component, &self.indices, &self.shared, config);
        Ok(start.await?)
    }
}

/// Releases instances that were not used for the time `every`, as long as the version exists.
async fn shrink(instances: &Weak<Instances>, every: Duration) {
    loop {
        sleep(every).await;
        let Some(instances) = instances.upgrade() else {
            return;
        };
        drop(instances.pool.shrink(instances.warm));
    }
}

/// A place in the pool whose instance is lent out. If the lease is dropped without being given back, the instance is
/// lost: a trap poisons an instance, and so does a call that was abandoned half-way.
pub(super) struct Lease<'a> {
    instances: &'a Arc<Instances>,
    ready_since: Option<Instant>,
}

impl<'a> Lease<'a> {
    /// Takes an idle instance; `None` if the caller must wait for one or start one.
    pub(super) fn take(instances: &'a Arc<Instances>) -> Option<(Self, Instance)> {
        let instance = instances.pool.take_now()?;
        let lease = Self {
            instances,
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
        instances: &'a Arc<Instances>,
        deadline: Instant,
    ) -> Result<(Self, Instance), CallError> {
        let mut take = pin!(instances.pool.take());
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
            instances,
            ready_since,
        };
        match place {
            Checkout::Warm(instance) => Ok((lease(waited.then(Instant::now)), instance)),
            Checkout::Empty => {
                // Gives the place back if no instance starts.
                let mut lease = lease(None);
                let instance = instances.start().await?;
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
        self.instances.pool.give_up();
        std::mem::forget(self);
    }

    /// Ends the lease after a successful call, and returns the instance to the pool.
    pub(super) fn give_back(self, mut instance: Instance) {
        HostState::end(&mut instance.guest().store);
        self.instances.pool.give_back(instance);
        std::mem::forget(self);
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.instances.pool.give_up();
        let instances = self.instances.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = instances.warm_up().await {
                    let (plugin, label) = (&instances.config.name, &instances.label);
                    instances.shared.log.write_host(|| {
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

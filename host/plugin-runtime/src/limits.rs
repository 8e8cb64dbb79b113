//! The limits of a guest.

use std::time::Duration;

use signalbox_config::PluginLimits;
use wasmtime::ResourceLimiter;

use super::{
    call_error::{GrowthFailed, MemoryRefused, TablesRefused},
    stats::InstanceGauge,
};

/// The most tables of an instance; components of scripting languages have a handful.
const TABLES_MAX: usize = 100;
/// The most elements of all its tables together, and of each one: the allocator grants no more.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// The most core instances and memories of an instance.
const INSTANCES_MAX: usize = 100;

/// The time that a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// CPU time.
    pub(super) cpu: Duration,
    /// Wall-clock time, including host calls and waiting.
    pub(super) wall: Duration,
}

impl Budget {
    /// The budget of an ordinary call.
    pub(super) fn call(limits: &PluginLimits) -> Self {
        Self {
            cpu: limits.call_cpu_max,
            wall: limits.call_time_max,
        }
    }

    /// The budget of instantiation and `init`, and of `self-test`.
    pub(super) fn init(limits: &PluginLimits) -> Self {
        Self {
            cpu: limits.init_time_max,
            wall: limits.init_time_max,
        }
    }
}

/// Limits the memories and tables of an instance, each kind taken together: a component may have dozens of each. A
/// refusal traps: guests rarely survive one, and a guest that keeps running half broken is worse than one that is
/// discarded.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_max: usize,
    memory: usize,
    table_elements: usize,
    instance_gauge: InstanceGauge,
}

impl Limiter {
    /// Creates the limiter of an instance. `instance_gauge` counts the instance and its memory until the limiter is dropped.
    pub(super) fn new(memory_max: usize, instance_gauge: InstanceGauge) -> Self {
        instance_gauge.changed(1, 0);
        Self {
            memory_max,
            memory: 0,
            table_elements: 0,
            instance_gauge,
        }
    }

    /// Bytes of all linear memories.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The component's own limit: the attempt is allowed, and fails.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let wanted = self.memory.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_max {
            let allowed = self.memory_max;
            return Err(MemoryRefused { wanted, allowed }.into());
        }
        let more = as_change(wanted) - as_change(self.memory);
        self.instance_gauge.changed(0, more);
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The table's own limit, as with memories. If it has none, `maximum` is the allocator's limit.
        if maximum.is_some_and(|maximum| maximum < TABLE_ELEMENTS_MAX && desired > maximum) {
            return Ok(false);
        }
        let wanted = self
            .table_elements
            .saturating_add(desired.saturating_sub(current));
        if wanted > TABLE_ELEMENTS_MAX {
            let allowed = TABLE_ELEMENTS_MAX;
            return Err(TablesRefused { wanted, allowed }.into());
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(GrowthFailed(error.to_string()).into())
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(GrowthFailed(error.to_string()).into())
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        INSTANCES_MAX
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.instance_gauge.changed(-1, -as_change(self.memory));
    }
}

/// A number of bytes as the change of a gauge; it is never too large to fit.
fn as_change(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use signalbox_telemetry::metrics::{FailureKind, PluginMetrics};

    use super::*;
    use crate::CallError;

    #[test]
    fn memories_and_tables_of_an_instance_are_counted_together() {
        let (plugin, version) = (Arc::<PluginMetrics>::default(), Arc::default());
        let instance_gauge = InstanceGauge::of(&plugin, &version);
        let mut limiter = Limiter::new(100, instance_gauge);
        assert!(limiter.memory_growing(0, 40, None).is_ok());
        assert!(limiter.memory_growing(0, 40, None).is_ok());
        assert!(matches!(
            limiter.memory_growing(40, 80, Some(70)),
            Ok(false)
        ));
        let refused = limiter.memory_growing(40, 61, None).unwrap_err();
        assert_eq!(CallError::from(refused).kind, FailureKind::Memory);
        assert!(limiter.memory_growing(40, 60, None).is_ok());
        assert_eq!(limiter.memory(), 100);
        let counted = || {
            assert_eq!(plugin.instances.get(), version.instances());
            assert_eq!(plugin.memory_bytes.get(), version.memory_bytes());
            (version.instances(), version.memory_bytes())
        };
        assert_eq!(counted(), (1, 100));
        assert!(limiter.table_growing(0, 60_000, None).is_ok());
        assert!(matches!(limiter.table_growing(0, 51, Some(50)), Ok(false)));
        let most = Some(TABLE_ELEMENTS_MAX);
        let refused = limiter.table_growing(0, 1_000_000, most).unwrap_err();
        assert_eq!(CallError::from(refused).kind, FailureKind::Memory);
        let refused = limiter.table_growing(0, 40_001, None).unwrap_err();
        assert_eq!(CallError::from(refused).kind, FailureKind::Memory);
        drop(limiter);
        assert_eq!(counted(), (0, 0));
    }
}

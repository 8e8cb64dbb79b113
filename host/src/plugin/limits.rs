//! What a guest may use up, and the typed errors of one that wants more.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::{config::PluginLimits, metrics::FailureKind};

/// Tables of an instance; components of scripting languages have a handful.
const TABLES_MAX: usize = 100;
/// Elements of one table.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Core instances and memories of an instance.
const INSTANCES_MAX: usize = 100;

/// The time that a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// On a CPU.
    pub(super) cpu: Duration,
    /// By the clock, with host calls and waiting.
    pub(super) wall: Duration,
}

impl Budget {
    /// For an ordinary call.
    pub(super) fn call(limits: &PluginLimits) -> Self {
        Self {
            cpu: limits.call_cpu_max,
            wall: limits.call_time_max,
        }
    }

    /// For instantiation with `init`, and for `self-test`.
    pub(super) fn init(limits: &PluginLimits) -> Self {
        Self {
            cpu: limits.init_time_max,
            wall: limits.init_time_max,
        }
    }
}

/// The guest's CPU time is used up.
#[derive(Debug, thiserror::Error)]
#[error("the call used more CPU time than it may ({0:?})")]
pub(super) struct CpuExhausted(pub(super) Duration);

/// The guest asked for more memory than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the plugin wanted {wanted} bytes of memory, it may have {allowed} (`memory_max`)")]
pub(super) struct MemoryRefused {
    wanted: usize,
    allowed: usize,
}

/// The guest asked for a larger table than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the plugin wanted a table of {0} elements, it may have 100,000")]
pub(super) struct TableRefused(usize);

/// Bounds what an instance takes. A refusal traps: guests rarely survive one, and one that runs on half broken is
/// worse than one that is thrown away.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_max: usize,
}

impl Limiter {
    pub(super) fn new(memory_max: usize) -> Self {
        Self { memory_max }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.memory_max {
            return Err(MemoryRefused {
                wanted: desired,
                allowed: self.memory_max,
            }
            .into());
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            return Err(TableRefused(desired).into());
        }
        Ok(true)
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

/// What kind of failure an error out of wasmtime is.
pub(super) fn classify(error: &wasmtime::Error) -> FailureKind {
    if error.is::<CpuExhausted>() {
        FailureKind::Deadline
    } else if error.is::<MemoryRefused>() || error.is::<TableRefused>() {
        FailureKind::Memory
    } else if format!("{error:#}").contains("fuel allocated for hostcalls has been exhausted") {
        // wasmtime keeps this error's type to itself.
        FailureKind::Output
    } else {
        FailureKind::Trap
    }
}

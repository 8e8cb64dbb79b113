//! The node's only wasmtime engine, its clock, and the lane for slow calls.
//!
//! Guests are interrupted by *epochs*: compiled code checks a counter that [`Clock`] advances once a millisecond. A
//! call that sees it advance and has used its thread for a tick stops where it is and yields the thread to other tasks;
//! it continues in the [slow lane](super::slow_lane), which has half as many threads as there are processors. So a guest
//! that loops delays others by two ticks at most, and a call that ends sooner pays nothing.

use std::{sync::Arc, thread};

use signalbox_telemetry::metrics::Metrics;
use tracing::warn;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::{clock::Clock, limits::TABLE_ELEMENTS_MAX, slow_lane::SlowLane};

/// The most component instances at a time, over all plugins and their versions.
const INSTANCES_MAX: u32 = 400;

/// The most core modules in one component; toolchains for scripting languages make about ten.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 40;

/// The most linear memories of one component. They come out of a pool for all plugins: sixteen instances of one plugin,
/// and as many of its next version, leave two thirds of it to others. Toolchains make one.
const MEMORIES_PER_COMPONENT_MAX: u32 = 4;

/// The most tables of one component, for the same reason. Toolchains make a few.
const TABLES_PER_COMPONENT_MAX: u32 = 16;

/// The largest linear memory that any plugin can be configured to have.
const MEMORY_BYTES_MAX: usize = 1 << 30;

/// Addresses reserved behind a memory that is allocated on demand, so that it does not move each time it grows.
const GROWTH_BYTES: u64 = 1 << 20;

/// Stack of a guest; the rest of the fiber's stack is the host's.
const GUEST_STACK_BYTES: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 1 << 20;

/// The engine of all plugins. Cheap to clone.
#[derive(Clone)]
pub(super) struct PluginEngine {
    wasm: Engine,
    clock: Arc<Clock>,
    slow_lane: Arc<SlowLane>,
    lanes: usize,
}

impl PluginEngine {
    /// Creates the engine and starts its clock.
    ///
    /// # Errors
    /// Returns [`EngineError`] if the machine lacks address space or threads.
    pub(super) fn new(metrics: &Arc<Metrics>) -> Result<Self, EngineError> {
        let wasm = engine()?;
        let no_thread = |error: std::io::Error| EngineError(error.to_string());
        let clock = Clock::start(wasm.weak(), metrics).map_err(no_thread)?;
        let lanes = (thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
        Ok(Self {
            wasm,
            slow_lane: Arc::new(SlowLane::start(lanes, &clock, metrics).map_err(no_thread)?),
            clock,
            lanes,
        })
    }

    /// The wasmtime engine.
    pub(super) fn wasm(&self) -> &Engine {
        &self.wasm
    }

    /// The lane in which calls continue that did not end within a tick.
    pub(super) fn slow_lane(&self) -> &SlowLane {
        &self.slow_lane
    }

    /// How many calls run in the slow lane at a time.
    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }

    /// The clock, which must run while guest code does.
    pub(super) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }
}

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "the plugin engine does not start: {0}; check the address space that the process may use (ulimit -v)"
)]
pub struct EngineError(String);

impl From<String> for EngineError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// Creates an engine that takes its memory from a pool, or on demand if there are too few addresses for the pool.
fn engine() -> Result<Engine, EngineError> {
    let pooling = match Engine::new(&pooling()) {
        Ok(engine) => return Ok(engine),
        Err(error) => error,
    };
    let engine = Engine::new(&on_demand()).map_err(|error| EngineError(format!("{error:#}")))?;
    warn!(
        "the address space for the memory of all plugins cannot be reserved ({pooling:#}), so each plugin's memory is \
         reserved as it is needed: calls of plugins, and starting instances, take longer. Remove the limit (ulimit -v, \
         RLIMIT_AS) of this process"
    );
    Ok(engine)
}

/// Everything that instances may use is reserved at the start: about 1.6 TiB of address space, but no memory.
fn pooling() -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(INSTANCES_MAX)
        // Enough for all instances at their maximum: no plugin takes them from another.
        .total_core_instances(INSTANCES_MAX * CORE_INSTANCES_PER_COMPONENT_MAX)
        .total_memories(INSTANCES_MAX)
        .total_tables(INSTANCES_MAX * 4)
        .total_stacks(INSTANCES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_memories_per_component(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_component_instance_size(2 << 20)
        .max_core_instance_size(2 << 20)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX);
    let mut config = common();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// An instance reserves about what it uses. Without spare room around memories, every access is checked.
fn on_demand() -> Config {
    let mut config = common();
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_reservation(0)
        .memory_reservation_for_growth(GROWTH_BYTES)
        .memory_guard_size(0)
        .memory_may_move(true);
    config
}

fn common() -> Config {
    let mut config = Config::new();
    config
        .memory_init_cow(true)
        .epoch_interruption(true)
        // Plugins are synchronous; support for concurrent guests triples the cost of a call.
        .concurrency_support(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_allocate_are_configurations_that_wasmtime_takes() {
        for config in [pooling(), on_demand()] {
            assert!(Engine::new(&config).is_ok());
        }
    }

    #[test]
    fn the_clock_thread_ends_with_the_engine() {
        let engine = PluginEngine::new(&Arc::default()).unwrap();
        let clock = Arc::downgrade(engine.clock());
        drop(engine.clock().run());
        drop(engine);
        // The thread holds the clock for an instant at a time.
        while clock.upgrade().is_some() {
            thread::yield_now();
        }
    }
}

//! The clock that interrupts guests.

use std::{
    array,
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
};

use signalbox_telemetry::{metrics::Metrics, supervise, thread_number};
use wasmtime::EngineWeak;

use super::cpu::TICK;

/// Ticks without a call after which the clock stops, so that an idle server does not wake up.
const PARK_AFTER_TICKS: u32 = 1_000;

/// Rows that calls are counted in, so that threads do not contend. Additional threads share rows.
const ROWS: usize = 8;

/// Advances the epoch of an engine while plugins are called, and sleeps otherwise.
pub(super) struct Clock {
    calls: [CallRow; ROWS],
    parked: AtomicBool,
    thread: Thread,
}

/// The calls that began and ended on the threads of one row, on its own cache line. A call may end on another thread.
#[derive(Default)]
#[repr(align(64))]
struct CallRow {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A call for which the clock runs.
pub(super) struct RunningClock<T: Deref<Target = Clock>>(T);

impl<T: Deref<Target = Clock>> RunningClock<T> {
    fn start(clock: T) -> Self {
        clock.begin();
        Self(clock)
    }
}

impl<T: Deref<Target = Clock>> Drop for RunningClock<T> {
    fn drop(&mut self) {
        self.0.row().ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Clock {
    /// Starts the clock of `engine`. It ends with the engine.
    ///
    /// # Errors
    /// Returns the system's error if it cannot create a thread.
    pub(super) fn start(engine: EngineWeak, metrics: &Arc<Metrics>) -> std::io::Result<Arc<Self>> {
        Self::start_with(engine, PARK_AFTER_TICKS, metrics)
    }

    fn start_with(
        engine: EngineWeak,
        park_after_ticks: u32,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Arc<Self>> {
        let (hand_over, take_over) = std::sync::mpsc::sync_channel::<Weak<Self>>(1);
        let metrics = metrics.clone();
        let run = move || {
            if let Ok(clock) = take_over.recv() {
                supervise::on_this_thread("clock of plugins", &metrics, || {
                    tick(&clock, &engine, park_after_ticks);
                });
            }
        };
        let thread = thread::Builder::new()
            .name("plugin-epochs".to_owned())
            .spawn(run)?;
        let clock = Arc::new(Self {
            calls: array::from_fn(|_| CallRow::default()),
            parked: AtomicBool::new(false),
            thread: thread.thread().clone(),
        });
        // The thread waits for exactly this; it cannot be gone.
        let _ = hand_over.send(Arc::downgrade(&clock));
        Ok(clock)
    }

    /// Keeps the clock running as long as the result exists: guest code can be stopped only while the clock ticks.
    pub(super) fn run(&self) -> RunningClock<&Self> {
        RunningClock::start(self)
    }

    /// Like [`Self::run`], for a job on another thread.
    pub(super) fn run_for_job(self: &Arc<Self>) -> RunningClock<Arc<Self>> {
        RunningClock::start(self.clone())
    }

    // Sequentially consistent, here and in `tick`: the clock parks and then counts the calls, and a call counts itself
    // and then checks whether the clock is parked, so that one of the two sees the other.
    fn begin(&self) {
        self.row().begun.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    fn row(&self) -> &CallRow {
        &self.calls[thread_number() % ROWS]
    }

    /// The number of calls that ever began; `None` if one of them is still running.
    fn all_ended(&self) -> Option<u64> {
        let sum = |count: fn(&CallRow) -> &AtomicU64| {
            let counts = self.calls.iter().map(count);
            counts.map(|count| count.load(Ordering::SeqCst)).sum()
        };
        // In this order: a call that begins in between makes the second sum larger.
        let ended: u64 = sum(|row| &row.ended);
        let begun: u64 = sum(|row| &row.begun);
        (begun == ended).then_some(begun)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

/// Ticks until the engine is gone.
fn tick(handle: &Weak<Clock>, engine: &EngineWeak, park_after_ticks: u32) {
    let (mut silent, mut calls) = (0, None);
    loop {
        thread::sleep(TICK);
        let (Some(clock), Some(engine)) = (handle.upgrade(), engine.upgrade()) else {
            return;
        };
        engine.increment_epoch();
        let earlier = std::mem::replace(&mut calls, clock.all_ended());
        silent = if calls.is_some() && calls == earlier {
            silent + 1
        } else {
            0
        };
        if silent < park_after_ticks {
            continue;
        }
        clock.parked.store(true, Ordering::SeqCst);
        let is_idle = clock.all_ended() == calls;
        drop((clock, engine));
        if is_idle {
            thread::park();
        }
        if let Some(clock) = handle.upgrade() {
            clock.parked.store(false, Ordering::SeqCst);
        }
        silent = 0;
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;

    use super::*;

    #[test]
    fn the_clock_stops_if_nothing_is_called_and_continues_with_the_next_call() {
        let engine = Engine::default();
        let clock = Clock::start_with(engine.weak(), 3, &Arc::default()).unwrap();
        for _ in 0..3 {
            while !clock.parked.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let call = clock.run();
            // Only the thread of the clock sets it.
            while clock.parked.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            drop(call);
        }
    }

    #[test]
    fn the_clock_never_stops_during_a_call_even_if_it_ends_on_another_thread() {
        let engine = Engine::default();
        let clock = Clock::start_with(engine.weak(), 3, &Arc::default()).unwrap();
        let call = clock.run_for_job();
        // A clock without a call, which starts later and has as many ticks, stops.
        let idle = Clock::start_with(engine.weak(), 3, &Arc::default()).unwrap();
        while !idle.parked.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        assert!(!clock.parked.load(Ordering::SeqCst));
        assert_eq!(clock.all_ended(), None);
        thread::spawn(move || drop(call)).join().unwrap();
        while !clock.parked.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }
}

//! The CPU time of a call, and the lane for calls that take long.
//!
//! A call is a future, and each poll of it may run on another thread, whose CPU clock shows something else. So time is
//! taken within one poll only: from its begin, or the last interruption in it, to the next interruption or its end.
//! The first poll is not timed until it is interrupted, which comes within a tick: most calls end before that and pay
//! nothing.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{engine::TICK, instance::CallError, limits::CpuExhausted};
use crate::metrics::FailureKind;

/// What the current call of one instance has used.
#[derive(Default)]
pub(super) struct CpuMeter {
    /// Whether the call did not end with its first poll: else there is nothing to clear.
    used: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cpu: Duration,
    /// The thread's CPU clock where the stretch began that is not charged yet; none outside of a timed poll.
    since: Option<Duration>,
    /// Held from an interruption to the end of the call, or until it waits for the host.
    lane: Option<Lane>,
    /// Whether the call waits for the lane or its turn in it, and for nothing else.
    yielding: bool,
}

/// What becomes of an interrupted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It keeps the thread.
    GoesOn,
    /// It has had a tick of it; others come first.
    Over,
}

/// A place in the slow lane: the plugin's own, then one of everybody's.
struct Lane(
    #[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit,
);

impl CpuMeter {
    /// For the next call: nothing used, and the lane given back. An instance that waits must not hold it.
    pub(super) fn clear(&self) {
        if self.used.swap(false, Ordering::Relaxed) {
            *self.state() = State::default();
        }
    }

    /// Charges what ran since the last look at the clock, and says whether that is long enough to let others have the
    /// thread.
    ///
    /// The first interruption of a call only starts the clock: most calls take a thousandth of a tick, and one of them
    /// that a tick happens to fall into must not pay with a turn through the scheduler. Later ones tell a guest that
    /// runs from a thread that the system had taken away.
    ///
    /// # Errors
    /// [`CpuExhausted`] where that is more than `budget` in all.
    pub(super) fn interrupted(&self, budget: Duration) -> Result<Turn, CpuExhausted> {
        self.used.store(true, Ordering::Relaxed);
        let now = thread_cpu_time();
        let mut state = self.state();
        // What ran before the first interruption is not known exactly; it is at most a tick.
        let ran = state.since.map(|since| now.saturating_sub(since));
        let turn = match ran {
            Some(ran) if ran >= TICK / 2 => Turn::Over,
            _ => Turn::GoesOn,
        };
        if ran.is_none() || turn == Turn::Over {
            state.since = Some(now);
            state.cpu += ran.unwrap_or(TICK);
        }
        if state.cpu > budget {
            return Err(CpuExhausted(budget));
        }
        Ok(turn)
    }

    /// Waits for a place in the slow lane, or, with one, lets others have the thread for a moment.
    ///
    /// `own` has room for as many calls of one plugin as `lane` has for all: calls of a plugin that always takes long
    /// queue among themselves, and those of others wait for few of them.
    pub(super) async fn go_on(&self, own: Arc<Semaphore>, lane: Arc<Semaphore>) {
        let in_lane = {
            let mut state = self.state();
            state.yielding = true;
            state.lane.is_some()
        };
        if in_lane {
            tokio::task::yield_now().await;
        } else if let (Ok(own), Ok(lane)) = (own.acquire_owned().await, lane.acquire_owned().await)
        {
            // The semaphores are never closed.
            self.state().lane = Some(Lane(own, lane));
        }
        self.state().yielding = false;
    }

    fn poll_begins(&self) {
        self.used.store(true, Ordering::Relaxed);
        self.state().since = Some(thread_cpu_time());
    }

    fn poll_ends(&self) {
        let mut state = self.state();
        if let Some(since) = state.since.take() {
            state.cpu += thread_cpu_time().saturating_sub(since);
        }
        // A call that sleeps, or waits for the store, uses no thread: its place is for one that does.
        if !state.yielding {
            state.lane = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `call`, whose CPU time is taken by `meter`, until `deadline`. Most calls are done at the first look, which
/// costs neither a timer nor a clock.
///
/// # Errors
/// [`CallError`] at the deadline. What was called is poisoned then.
pub(super) async fn within<R>(
    deadline: Instant,
    meter: &CpuMeter,
    call: impl Future<Output = R>,
) -> Result<R, CallError> {
    let mut call = pin!(call);
    if let Poll::Ready(done) = futures_util::poll!(call.as_mut()) {
        return Ok(done);
    }
    meter.poll_ends();
    let timed = poll_fn(|cx| {
        meter.poll_begins();
        let poll = call.as_mut().poll(cx);
        meter.poll_ends();
        poll
    });
    let late = |_| CallError::new(FailureKind::Deadline, "the call took longer than it may");
    timeout_at(deadline, timed).await.map_err(late)
}

fn thread_cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    /// Burns CPU time on this thread.
    fn burn(time: Duration) {
        let until = thread_cpu_time() + time;
        while thread_cpu_time() < until {}
    }

    #[test]
    fn time_of_other_threads_and_of_waiting_is_not_charged() {
        let meter = CpuMeter::default();
        let budget = Duration::from_millis(50);
        meter.interrupted(budget).unwrap();
        meter.poll_ends();
        // Other work on this thread, between two polls.
        burn(Duration::from_millis(100));
        // A thread whose clock is far ahead of this one's.
        let elsewhere = std::thread::scope(|scope| {
            let call = scope.spawn(|| {
                burn(Duration::from_millis(300));
                meter.poll_begins();
                let charged = meter.interrupted(budget);
                meter.poll_ends();
                charged
            });
            call.join()
        });
        assert!(elsewhere.unwrap().is_ok());
        meter.poll_begins();
        burn(Duration::from_millis(60));
        assert!(meter.interrupted(budget).is_err());
    }

    #[test]
    fn a_call_keeps_the_thread_until_it_has_had_a_tick_of_it() {
        let meter = CpuMeter::default();
        let budget = Duration::from_secs(10);
        assert_eq!(meter.interrupted(budget).unwrap(), Turn::GoesOn);
        // The system took the thread away for some ticks; the guest did not run.
        std::thread::sleep(TICK * 5);
        assert_eq!(meter.interrupted(budget).unwrap(), Turn::GoesOn);
        burn(TICK);
        assert_eq!(meter.interrupted(budget).unwrap(), Turn::Over);
    }

    #[test]
    fn what_a_call_used_is_cleared_for_the_next() {
        let meter = CpuMeter::default();
        let budget = TICK * 2;
        meter.interrupted(budget).unwrap();
        burn(TICK * 3);
        assert!(meter.interrupted(budget).is_err());
        meter.clear();
        assert!(meter.interrupted(budget).is_ok());
    }

    #[test]
    fn calls_of_one_plugin_leave_places_in_the_lane_to_others() {
        let lane = Arc::new(Semaphore::new(1));
        let (busy, other) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let meters: [CpuMeter; 4] = std::array::from_fn(|_| CpuMeter::default());
        let mut cx = Context::from_waker(Waker::noop());
        let mut turns: Vec<_> = [&busy, &busy, &busy, &other]
            .into_iter()
            .zip(&meters)
            .map(|(own, meter)| Box::pin(meter.go_on(own.clone(), lane.clone())))
            .collect();
        let polls: Vec<_> = turns
            .iter_mut()
            .map(|turn| turn.as_mut().poll(&mut cx).is_ready())
            .collect();
        assert_eq!(polls, [true, false, false, false]);
        // It waits for the host.
        meters[0].poll_ends();
        // The plugin's second call came first, but only to the plugin's own queue.
        assert!(turns[3].as_mut().poll(&mut cx).is_ready());
        assert!(turns[1].as_mut().poll(&mut cx).is_pending());
    }
}

//! The CPU time of a call, and when it must leave the thread that it started on.
//!
//! A call is a future, and each poll of it may run on another thread with a different CPU clock. So time is measured
//! within a single poll only: from its start, or the last interruption in it, to the next interruption or its end. The
//! first poll is not timed until it is interrupted, which happens within a tick: most calls end before that and pay
//! nothing.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use super::call_error::Stopped;

/// The interval at which the epoch advances: the granularity of CPU limits, and half of the longest time that a guest
/// holds a thread.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// The CPU time of the current call of one instance.
#[derive(Default)]
pub(super) struct CpuMeter {
    /// Whether the call was interrupted or polled again; otherwise there is nothing to clear.
    used: AtomicBool,
    /// Whether nobody waits for the call any more. Its instance is never used again.
    given_up: AtomicBool,
    state: Mutex<MeterState>,
}

#[derive(Default)]
struct MeterState {
    cpu: Duration,
    /// The thread's CPU clock at the start of the stretch that is not charged yet; `None` outside a timed poll.
    since: Option<Duration>,
    place: CallLane,
}

/// The place where a call runs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum CallLane {
    /// On a thread that serves other tasks too.
    #[default]
    Shared,
    /// On such a thread, but it has had its turn.
    Leaving,
    /// In the slow lane.
    Lane,
}

/// The decision about an interrupted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InterruptAction {
    /// It keeps the thread.
    Continue,
    /// It has had its turn, and must leave.
    Over,
}

impl CpuMeter {
    /// Resets the meter for the next call.
    pub(super) fn clear(&self) {
        if self.used.swap(false, Ordering::Relaxed) {
            *self.state() = MeterState::default();
        }
    }

    /// Charges the CPU time since the clock was last read, and returns whether the call has had its turn on a thread
    /// that serves other tasks too.
    ///
    /// The first interruption of a call only starts the clock: most calls take a thousandth of a tick, and such a call
    /// must not pay for a move to another thread just because a tick happens to fall into it. Later interruptions tell
    /// whether the guest ran, or the system had taken the thread away.
    ///
    /// # Errors
    /// Returns [`Stopped`] if the call exceeds `budget` in total, or if it was given up.
    pub(super) fn interrupted(&self, budget: Duration) -> Result<InterruptAction, Stopped> {
        self.used.store(true, Ordering::Relaxed);
        let now = thread_cpu_time();
        let mut state = self.state();
        // The time before the first interruption is not known exactly; it is at most a tick.
        let ran = state.since.map(|since| now.saturating_sub(since));
        let turn = match ran {
            Some(ran) if ran >= TICK / 2 => InterruptAction::Over,
            _ => InterruptAction::Continue,
        };
        if ran.is_none() || turn == InterruptAction::Over {
            state.since = Some(now);
            state.cpu += ran.unwrap_or(TICK);
        }
        if state.cpu > budget {
            return Err(Stopped::CpuExhausted(budget));
        }
        if self.is_given_up() {
            return Err(Stopped::GivenUp);
        }
        if state.place == CallLane::Lane || turn == InterruptAction::Continue {
            return Ok(InterruptAction::Continue);
        }
        state.place = CallLane::Leaving;
        Ok(InterruptAction::Over)
    }

    /// Whether the call must leave for the slow lane.
    pub(super) fn wants_lane(&self) -> bool {
        self.state().place == CallLane::Leaving
    }

    /// Records that nobody waits for the call any more.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for the call any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Starts the clock: the call continues in the slow lane.
    pub(super) fn stretch_begins(&self) {
        self.poll_begins(CallLane::Lane);
    }

    /// Stops the clock: the call ended, waits for the host, or must leave for the lane.
    pub(super) fn stretch_ends(&self) {
        let mut state = self.state();
        if let Some(since) = state.since.take() {
            state.cpu += thread_cpu_time().saturating_sub(since);
        }
        if state.place == CallLane::Lane {
            state.place = CallLane::Shared;
        }
    }

    /// Polls a call that waited for the host. Ready with `None` if it must move to the slow lane.
    pub(super) fn poll<R>(
        &self,
        call: Pin<&mut (impl Future<Output = R> + ?Sized)>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<R>> {
        self.poll_begins(CallLane::Shared);
        let poll = call.poll(cx);
        self.stretch_ends();
        if poll.is_pending() && self.wants_lane() {
            return Poll::Ready(None);
        }
        poll.map(Some)
    }

    fn poll_begins(&self, place: CallLane) {
        self.used.store(true, Ordering::Relaxed);
        let mut state = self.state();
        state.place = place;
        state.since = Some(thread_cpu_time());
    }

    fn state(&self) -> MutexGuard<'_, MeterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        meter.stretch_ends();
        // Other work on this thread, between two polls.
        burn(Duration::from_millis(100));
        // A thread whose clock is far ahead of this one's.
        let elsewhere = std::thread::scope(|scope| {
            let call = scope.spawn(|| {
                burn(Duration::from_millis(300));
                meter.poll_begins(CallLane::Shared);
                let charged = meter.interrupted(budget);
                meter.stretch_ends();
                charged
            });
            call.join()
        });
        assert!(elsewhere.unwrap().is_ok());
        meter.poll_begins(CallLane::Shared);
        burn(Duration::from_millis(60));
        assert!(meter.interrupted(budget).is_err());
    }

    #[test]
    fn a_call_keeps_the_thread_until_it_has_had_a_tick_of_it() {
        let meter = CpuMeter::default();
        let budget = Duration::from_secs(10);
        assert_eq!(
            meter.interrupted(budget).unwrap(),
            InterruptAction::Continue
        );
        // The system took the thread away for some ticks; the guest did not run.
        std::thread::sleep(TICK * 5);
        assert_eq!(
            meter.interrupted(budget).unwrap(),
            InterruptAction::Continue
        );
        burn(TICK);
        assert_eq!(meter.interrupted(budget).unwrap(), InterruptAction::Over);
    }

    #[test]
    fn the_usage_of_a_call_is_cleared_for_the_next() {
        let meter = CpuMeter::default();
        let budget = TICK * 2;
        meter.interrupted(budget).unwrap();
        burn(TICK * 3);
        assert!(meter.interrupted(budget).is_err());
        meter.clear();
        assert!(meter.interrupted(budget).is_ok());
    }
}

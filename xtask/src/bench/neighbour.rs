//! Useless work at the lowest priority, in a process other than the server's. Its cost for the server's messages is the
//! cost of any work on the same machine, whichever process does it.

use std::hint::spin_loop;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Calls `work` while a thread computes for `busy` in each `interval`, under the scheduling policy with which the server
/// compiles plugins.
pub(super) fn next_to<T>(
    busy: Duration,
    interval: Duration,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        // The thread ends when `stop` is dropped.
        let (stop, stopped) = channel::<()>();
        let (ready, is_ready) = channel();
        scope.spawn(move || {
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
            // Fails if the caller has ended.
            let _ = ready.send(set);
            let pause = interval.saturating_sub(busy);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                while began.elapsed() < busy {
                    spin_loop();
                }
            }
        });
        let set = is_ready.recv().context("the thread ended")?;
        set.map_err(|error| anyhow!("no thread can have the policy SCHED_IDLE: {error:?}"))?;
        let done = work();
        drop(stop);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_ends_with_the_work() {
        let (busy, interval) = (Duration::from_millis(1), Duration::from_millis(2));
        assert_eq!(next_to(busy, interval, || Ok(7)).ok(), Some(7));
    }
}

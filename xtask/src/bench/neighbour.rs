//! Useless work at a low priority, in a process other than the server's. Its cost for the server's messages is the
//! cost of any work on the same machine, whichever process does it.

use std::hint::spin_loop;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The nice value with which the server compiles plugins.
const NICE: i32 = 10;

/// Calls `work` while a thread computes for `busy` in each `interval`, at the priority with which the server compiles
/// plugins.
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
            let this_thread = Some(rustix::thread::gettid());
            let set = rustix::process::setpriority_process(this_thread, NICE);
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
        set.context("the priority of a thread cannot be lowered")?;
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

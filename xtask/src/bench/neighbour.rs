//! Useless work at the lowest priority, in a process other than the server's. Its cost for the server's messages is the
//! cost of any work on the same machine, whichever process does it.

use std::hint::spin_loop;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// A thread that computes periodically. It ends when this value is dropped.
pub(super) struct IdleNeighbour {
    stop: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl IdleNeighbour {
    /// Computes for `busy` in each `interval`, under the scheduling policy with which the server compiles plugins.
    pub(super) fn start(busy: Duration, interval: Duration) -> anyhow::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let (ready, is_ready) = channel();
        let work = move || {
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
        };
        let thread = thread::Builder::new().name("neighbour".to_owned());
        let neighbour = Self {
            stop: Some(stop),
            thread: Some(thread.spawn(work).context("no thread to compute in")?),
        };
        let set = is_ready.recv().context("the thread ended")?;
        set.map_err(|error| anyhow!("no thread can have the policy SCHED_IDLE: {error:?}"))?;
        Ok(neighbour)
    }
}

impl Drop for IdleNeighbour {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_its_value() {
        let neighbour = IdleNeighbour::start(Duration::from_millis(1), Duration::from_millis(2));
        drop(neighbour.expect("a thread"));
    }
}

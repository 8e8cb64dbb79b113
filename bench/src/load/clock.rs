//! One time base for all threads: nanoseconds since the process began to measure.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the first call, from the monotonic clock.
pub(super) fn now_ns() -> u64 {
    // 2^64 ns are 584 years.
    ORIGIN.elapsed().as_nanos() as u64
}

/// Blocks this thread until `due_ns`. Returns at once if that is in the past.
pub(super) fn sleep_until_ns(due_ns: u64) {
    let now = now_ns();
    if due_ns > now {
        std::thread::sleep(Duration::from_nanos(due_ns - now));
    }
}

//! Numbers for threads, which choose a thread's share of what is split among threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of this thread: threads are counted from 0 in the order in which they first ask.
pub fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

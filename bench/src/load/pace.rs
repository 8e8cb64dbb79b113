//! The open loop: sends messages at fixed times.
//!
//! A dedicated thread sleeps with microsecond precision, while the runtime's timer has millisecond precision, and
//! writes directly to the sockets. A message that leaves late because this machine was busy still carries the time at
//! which it was due.

use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use tokio::runtime::Handle;

use super::clock::{now_ns, sleep_until_ns};
use super::endpoint::Endpoint;
use super::tally::Tally;

/// The thread checks at least this often whether it should stop.
const STOP_CHECK_NS: u64 = 50_000_000;

/// Starts the thread. It sends `rate` messages a second, from one endpoint after another, until sending is stopped.
pub(super) fn start(
    endpoints: Vec<Arc<Endpoint>>,
    rate: f64,
    tally: Arc<Tally>,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let runtime = Handle::current();
    let pacing = move || {
        // If the kernel does not accept a write at once, a task on the runtime finishes it.
        let _runtime = runtime.enter();
        pace(&endpoints, rate, &tally);
    };
    let thread = thread::Builder::new().name("pace".to_owned());
    thread
        .spawn(pacing)
        .context("cannot start the pacing thread")
}

fn pace(endpoints: &[Arc<Endpoint>], rate: f64, tally: &Tally) {
    let start_ns = now_ns();
    let stride = stride(endpoints.len());
    let mut index = 0;
    for message in 0_u64.. {
        let due_ns = start_ns + (message as f64 * 1e9 / rate) as u64;
        while tally.is_sending() && now_ns() < due_ns {
            sleep_until_ns(due_ns.min(now_ns() + STOP_CHECK_NS));
        }
        if !tally.is_sending() {
            return;
        }
        endpoints[index].send(1, due_ns, tally);
        index = (index + stride) % endpoints.len();
    }
}

/// A step that visits every endpoint once per round, and visits neighbouring endpoints far apart in time, as
/// independent users would send.
fn stride(count: usize) -> usize {
    let is_coprime = |step: usize| {
        let (mut a, mut b) = (step, count);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    let golden = (count * 618 / 1000).max(1);
    (golden..).find(|&step| is_coprime(step)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_its_turn_once_a_round() {
        for count in [1, 2, 3, 16, 100, 8_000] {
            let mut seen = vec![false; count];
            let mut index = 0;
            for _ in 0..count {
                let twice = std::mem::replace(&mut seen[index], true);
                assert!(!twice, "{index} twice of {count}");
                index = (index + stride(count)) % count;
            }
        }
    }
}

//! Records the fate of every message: the answer to its sender, and its arrival.

use std::sync::Mutex;

use hdrhistogram::Histogram;

use crate::lock;

/// The longest latency in the histogram, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// The fate of one message.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// When its sender received the ack `delivered`, in milliseconds since the beginning; 0 if it never did.
    delivered_ms: u32,
    /// The position of its first arrival among all arrivals from its sender, from 1; 0 if it has not arrived.
    came_as: u32,
    /// How often it arrived.
    times: u8,
}

/// The messages of one sender to its one receiver, indexed by number.
#[derive(Debug, Default)]
struct Way {
    messages: Vec<Fate>,
    came: u32,
    refused: u64,
}

/// All messages, and the latencies of those whose receiver was connected when they were sent.
#[derive(Debug)]
pub(super) struct Ledger {
    ways: Vec<Mutex<Way>>,
    quiet: Mutex<Histogram<u64>>,
    storm: Mutex<Histogram<u64>>,
}

/// The totals at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Messages that were acked `delivered`.
    pub(super) delivered: u64,
    /// Messages that were answered with `offline` or an error: they were not delivered, and their senders know it.
    pub(super) refused: u64,
    /// Messages that were acked `delivered` but never arrived.
    pub(super) lost: u64,
    /// The same, for messages acked around the time when Redis was killed. Not included in `lost`.
    pub(super) lost_with_redis: u64,
    /// Messages that arrived more than once.
    pub(super) doubled: u64,
    /// Messages that arrived after a later one.
    pub(super) reordered: u64,
}

impl Ledger {
    /// Creates a ledger for `senders` senders.
    pub(super) fn new(senders: usize) -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 2);
        let mut ways = Vec::new();
        ways.resize_with(senders, Mutex::default);
        Ok(Self {
            ways,
            quiet: Mutex::new(histogram()?),
            storm: Mutex::new(histogram()?),
        })
    }

    /// The number of senders.
    pub(super) fn senders(&self) -> usize {
        self.ways.len()
    }

    /// Adds the next message of `sender` and returns its number.
    pub(super) fn begin(&self, sender: usize) -> usize {
        let mut way = lock(&self.ways[sender]);
        way.messages.push(Fate::default());
        way.messages.len() - 1
    }

    /// Records the answer to the sender: the time of the ack `delivered`, or `None` for any other answer.
    pub(super) fn answered(&self, sender: usize, number: usize, delivered_ms: Option<u32>) {
        let mut way = lock(&self.ways[sender]);
        match delivered_ms {
            Some(ms) => {
                if let Some(fate) = way.messages.get_mut(number) {
                    fate.delivered_ms = ms.max(1);
                }
            }
            None => way.refused += 1,
        }
    }

    /// Records that the message arrived at its receiver.
    pub(super) fn came(&self, sender: usize, number: usize) {
        let mut way = lock(&self.ways[sender]);
        way.came += 1;
        let came = way.came;
        if let Some(fate) = way.messages.get_mut(number) {
            fate.times = fate.times.saturating_add(1);
            if fate.came_as == 0 {
                fate.came_as = came;
            }
        }
    }

    /// Records the latency of a message in microseconds.
    pub(super) fn took(&self, us: u64, is_quiet: bool) {
        let histogram = if is_quiet { &self.quiet } else { &self.storm };
        lock(histogram).saturating_record(us.max(1));
    }

    /// The 99th percentile of the latency in milliseconds, in the quiet phase and in the storm.
    pub(super) fn p99_ms(&self) -> (f64, f64) {
        let of = |histogram: &Mutex<Histogram<u64>>| {
            lock(histogram).value_at_quantile(0.99) as f64 / 1000.0
        };
        (of(&self.quiet), of(&self.storm))
    }

    /// Computes the totals. `outages` holds the start and the end of each Redis outage, in milliseconds.
    pub(super) fn totals(&self, outages: &[(u32, u32)]) -> Totals {
        let mut totals = Totals::default();
        let was_away = |ms: u32| outages.iter().any(|(from, to)| (*from..=*to).contains(&ms));
        for way in &self.ways {
            let way = lock(way);
            totals.refused += way.refused;
            let mut last = 0;
            for fate in &way.messages {
                totals.doubled += u64::from(fate.times > 1);
                if fate.delivered_ms == 0 {
                    continue;
                }
                totals.delivered += 1;
                let away = was_away(fate.delivered_ms);
                match fate.came_as {
                    0 if away => totals.lost_with_redis += 1,
                    0 => totals.lost += 1,
                    came if came < last && !away => totals.reordered += 1,
                    came => last = last.max(came),
                }
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_reordered_messages_are_found_and_outages_are_counted_separately() {
        let ledger = Ledger::new(2).unwrap();
        for _ in 0..6 {
            ledger.begin(0);
        }
        for (number, ms) in [(0, 10), (1, 20), (2, 30), (3, 40), (4, 1500)] {
            ledger.answered(0, number, Some(ms));
        }
        ledger.answered(0, 5, None);
        for number in [0, 2, 1, 2] {
            ledger.came(0, number);
        }
        let expected = Totals {
            delivered: 5,
            refused: 1,
            lost: 1,
            lost_with_redis: 1,
            doubled: 1,
            reordered: 1,
        };
        assert_eq!(ledger.totals(&[(1000, 2000)]), expected);
    }
}

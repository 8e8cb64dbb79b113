//! The results of a soak test, and whether it passed.

use std::fmt;

use super::ledger::Totals;
use super::people::World;
use super::processes::Node;
use super::storm::Storm;

/// Maximum ratio of the 99th percentile in the storm to that in the quiet phase.
const P99_RATIO_MAX: f64 = 3.0;

/// 99th percentiles up to this value, in milliseconds, always pass: there the ratio says more about the machine than
/// about the server.
const P99_FLOOR_MS: f64 = 5.0;

/// Memory counts as flat if it grew by at most this: a share of its earlier size, plus a fixed amount.
const GROWTH_SHARE_MAX: f64 = 0.15;
const GROWTH_BYTES_MAX: u64 = 16 << 20;

/// All figures of a soak test.
pub(super) struct Report<'a> {
    storm: &'a Storm,
    totals: Totals,
    p99_ms: (f64, f64),
    /// The name of each node, and its memory before and after, in bytes.
    memory: Vec<(&'a str, u64, u64)>,
    /// Messages that the nodes dropped since their last start, by reason.
    dropped: Vec<(String, f64)>,
}

impl<'a> Report<'a> {
    pub(super) async fn of(
        world: &World,
        storm: &'a Storm,
        nodes: &'a [Node],
    ) -> anyhow::Result<Self> {
        let (mut dropped, mut memory) = (Vec::new(), Vec::new());
        for (index, node) in nodes.iter().enumerate() {
            let now = node.memory()?;
            let before = storm.memory.get(index).copied().unwrap_or(now);
            memory.push((node.name.as_str(), before, now));
            let counters = node.counters("wss_messages_dropped_total").await?;
            let counters = counters.into_iter().filter(|(_, count)| *count > 0.0);
            dropped.extend(counters.map(|(name, count)| (format!("{} {name}", node.name), count)));
        }
        Ok(Self {
            storm,
            totals: world.ledger.totals(&storm.outages),
            p99_ms: world.ledger.p99_ms(),
            memory,
            dropped,
        })
    }

    /// Whether all checks passed.
    pub(super) fn is_well(&self) -> bool {
        self.checks().iter().all(|(_, _, is_well)| *is_well)
    }

    /// The name of each check, its finding, and whether that is within its limit.
    fn checks(&self) -> Vec<(String, String, bool)> {
        let check = |what: &str, count: u64, is_well| (what.to_owned(), count.to_string(), is_well);
        let none = |what, count| check(what, count, count == 0);
        let Totals {
            delivered,
            lost,
            doubled,
            reordered,
            ..
        } = self.totals;
        let mut checks = vec![
            check("acked as delivered", delivered, delivered > 0),
            none("lost", lost),
            none("came twice", doubled),
            none("out of order", reordered),
            self.latency(),
        ];
        checks.extend(self.memory.iter().map(|(name, before, after)| {
            let growth_max = (*before as f64 * GROWTH_SHARE_MAX) as u64 + GROWTH_BYTES_MAX;
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            (
                format!("memory of node {name}"),
                format!("{:.1} MiB, then {:.1} MiB", mib(*before), mib(*after)),
                *after <= before + growth_max,
            )
        }));
        checks
    }

    fn latency(&self) -> (String, String, bool) {
        let (quiet, storm) = self.p99_ms;
        let allowed = (quiet * P99_RATIO_MAX).max(P99_FLOOR_MS);
        (
            "p99 of the good clients".to_owned(),
            format!("{quiet:.2} ms quiet, {storm:.2} ms in the storm"),
            storm <= allowed,
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Storm {
            swaps,
            restarts,
            redis_restarts,
            longest_stop,
            ..
        } = self.storm;
        let longest = longest_stop.as_secs_f64();
        writeln!(
            f,
            "\n{swaps} swaps, {restarts} restarts of nodes ({longest:.1} s the longest), {redis_restarts} of Redis"
        )?;
        for (what, found, is_well) in self.checks() {
            let verdict = if is_well { "ok" } else { "FAILED" };
            writeln!(f, "  {verdict:<7} {what:<26} {found}")?;
        }
        let (refused, away) = (self.totals.refused, self.totals.lost_with_redis);
        writeln!(f, "          {:<26} {refused}", "told offline or error")?;
        writeln!(f, "          {:<26} {away}", "lost with a killed Redis")?;
        for (name, count) in &self.dropped {
            writeln!(f, "          {name} {count}")?;
        }
        let verdict = if self.is_well() { "passed" } else { "failed" };
        writeln!(f, "the soak {verdict}")
    }
}

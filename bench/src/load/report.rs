//! The outcome of a run, for people and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The results of a run. Counts cover the measured time unless stated otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `pairs`, `open`, `room` or `idle`.
    pub mode: String,
    /// Connections that were open.
    pub connections: usize,
    /// Time to open them all, in seconds.
    pub connect_seconds: f64,
    /// Measured time in seconds.
    pub measured_seconds: f64,
    /// Messages sent.
    pub sent: u64,
    /// Messages sent in the whole run.
    pub sent_in_all: u64,
    /// Messages that arrived; in a room each member's copy counts.
    pub delivered: u64,
    /// `delivered` divided by `measured_seconds`.
    pub delivered_per_second: f64,
    /// Time from sending a message, or in the open loop from the time at which it was due, to its arrival.
    pub latency: Latency,
    /// Messages of the whole run that never arrived.
    pub lost: u64,
    /// Messages of the whole run that arrived again.
    pub duplicated: u64,
    /// Messages of the whole run that arrived after a later one of the same sender.
    pub reordered: u64,
    /// Confirmations of the server to senders, of the whole run.
    pub acked: u64,
    /// Messages of the whole run that asked for a confirmation and got none (with `--acks`).
    pub unacked: u64,
    /// Error frames and failed sends of the whole run.
    pub errors: u64,
    /// Connections that closed before the end of the run.
    pub closed: u64,
    /// The first few errors and close reasons.
    pub first_errors: Vec<String>,
    /// User and system time of the server's processes while the run measured, in seconds (with `--cpu-pid`).
    pub server_cpu_seconds: Option<f64>,
    /// `delivered` divided by `server_cpu_seconds`; absent if the server used no measurable time.
    pub delivered_per_cpu_second: Option<f64>,
    /// The server's resident memory before the first connection, in bytes (with `--cpu-pid`).
    pub rss_before_bytes: Option<u64>,
    /// The server's resident memory at the end of the measured time, in bytes (with `--cpu-pid`).
    pub rss_after_bytes: Option<u64>,
    /// Growth of resident memory divided by the number of connections. Only for idle connections, because load adds its
    /// own buffers.
    pub rss_per_connection_bytes: Option<f64>,
}

/// Percentiles in microseconds; all 0 if nothing arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Number of messages behind the percentiles.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90 % are faster.
    pub p90_us: f64,
    /// 99 % are faster.
    pub p99_us: f64,
    /// 99.9 % are faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Report {
    /// Whether everything arrived once and in order, without errors or early closes.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        [
            self.lost,
            self.duplicated,
            self.reordered,
            self.unacked,
            self.errors,
            self.closed,
        ] == [0; 6]
    }
}

impl Latency {
    /// Computes the percentiles of a histogram of nanoseconds.
    pub(super) fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let quantile = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mode, connections, seconds) = (&self.mode, self.connections, self.connect_seconds);
        writeln!(
            f,
            "{mode} with {connections} connections, opened in {seconds:.2} s"
        )?;
        if mode != "idle" {
            self.write_traffic(f)?;
        }
        if let Some(cpu) = self.server_cpu_seconds {
            let share = self.delivered_per_cpu_second.filter(|share| *share > 0.0);
            let share = share.map(|share| format!(", {share:.0} delivered for each"));
            writeln!(
                f,
                "  server     {cpu:.2} s of CPU{}",
                share.unwrap_or_default()
            )?;
        }
        if let Some(bytes) = self.rss_after_bytes {
            let each = self.rss_per_connection_bytes;
            let each = each.map(|each| format!(", {each:.0} bytes a connection"));
            let megabytes = bytes as f64 / 1e6;
            writeln!(
                f,
                "  memory     {megabytes:.1} MB resident{}",
                each.unwrap_or_default()
            )?;
        }
        let (errors, closed) = (self.errors, self.closed);
        if errors + closed > 0 {
            writeln!(
                f,
                "  errors     {errors}, connections closed early {closed}"
            )?;
        }
        let mut texts = self.first_errors.iter();
        texts.try_for_each(|text| writeln!(f, "    {text}"))
    }
}

impl Report {
    fn write_traffic(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            delivered,
            measured_seconds,
            delivered_per_second,
            lost,
            duplicated,
            reordered,
            acked,
            unacked,
            ..
        } = self;
        let Latency {
            p50_us,
            p90_us,
            p99_us,
            p999_us,
            max_us,
            ..
        } = self.latency;
        writeln!(f, "  sent       {sent} in {measured_seconds:.2} s")?;
        writeln!(
            f,
            "  delivered  {delivered}, {delivered_per_second:.0} a second"
        )?;
        writeln!(
            f,
            "  latency    p50 {p50_us:.0} µs, p90 {p90_us:.0} µs, p99 {p99_us:.0} µs, p99.9 {p999_us:.0} µs, max {max_us:.0} µs"
        )?;
        writeln!(
            f,
            "  order      lost {lost}, duplicated {duplicated}, reordered {reordered}"
        )?;
        if acked + unacked > 0 {
            writeln!(f, "  acks       {acked}, missing {unacked}")?;
        }
        Ok(())
    }
}

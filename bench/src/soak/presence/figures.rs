//! The times until all clients know the truth, by kind of event.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EventKind {
    /// A client connected and joined.
    Connect,
    /// A client that was connected joined.
    Join,
    /// A client left its room.
    Leave,
    /// A client closed its connection, or broke it off.
    Disconnect,
    /// A client came and went several times.
    Flapping,
    /// A node was drained.
    Drain,
    /// A node was killed.
    Kill,
    /// Redis was restarted with its data.
    RedisRestart,
    /// Redis was restarted without its data.
    RedisLoss,
}

impl EventKind {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Disconnect => "disconnect",
            Self::Flapping => "flapping",
            Self::Drain => "drain of a node",
            Self::Kill => "kill of a node",
            Self::RedisRestart => "Redis restarted with its data",
            Self::RedisLoss => "Redis restarted without its data",
        }
    }

    /// How long it may take after the event until all clients know the truth, with this `grace`.
    pub(super) fn time_max(self, grace: Duration) -> Duration {
        /// A lease ends, or is written again.
        const LEASE: Duration = Duration::from_secs(15);
        let time = grace + Duration::from_secs(2);
        match self {
            Self::Kill | Self::RedisRestart | Self::RedisLoss => time + LEASE,
            _ => time,
        }
    }

    /// Whether users who stay may seem to leave: docs/rooms.md names these events.
    fn may_confuse(self) -> bool {
        self == Self::RedisLoss
    }
}

/// The figures of one kind of event.
#[derive(Debug, Default)]
struct Figure {
    events: u64,
    /// One for each room that was concerned and learnt the truth.
    times: Vec<Duration>,
    late: u64,
    false_leaves: u64,
}

/// The figures of all kinds.
#[derive(Debug, Default)]
pub(super) struct Figures(BTreeMap<EventKind, Figure>);

impl Figures {
    /// An event happened, after which users who stayed seemed to leave `false_leaves` times.
    pub(super) fn event(&mut self, kind: EventKind, false_leaves: u64) {
        let figure = self.0.entry(kind).or_default();
        figure.events += 1;
        figure.false_leaves += false_leaves;
    }

    /// A room learnt the truth after this time, with this `grace`; `None` if it did not.
    pub(super) fn known(&mut self, kind: EventKind, time: Option<Duration>, grace: Duration) {
        let figure = self.0.entry(kind).or_default();
        figure.times.extend(time);
        if time.is_none_or(|time| time > kind.time_max(grace)) {
            figure.late += 1;
        }
    }

    /// Whether all rooms learnt the truth in time, and nobody seemed to leave without a reason.
    pub(super) fn are_well(&self) -> bool {
        self.0.iter().all(|(kind, figure)| {
            figure.late == 0 && (figure.false_leaves == 0 || kind.may_confuse())
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "event                              events   p50 ms   p99 ms   max ms  late false leaves"
        )?;
        for (kind, figure) in &self.0 {
            let Figure {
                events,
                late,
                false_leaves,
                ..
            } = figure;
            let mut times = figure.times.clone();
            times.sort_unstable();
            let [p50, p99, max] =
                [0.5, 0.99, 1.0].map(|share| percentile(&times, share).as_millis());
            let name = kind.name();
            writeln!(
                f,
                "{name:<34} {events:>6} {p50:>8} {p99:>8} {max:>8} {late:>5} {false_leaves:>12}"
            )?;
        }
        Ok(())
    }
}

/// The smallest time that is not below this share of `sorted`; zero if there is none.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let found = sorted.get(rank.saturating_sub(1));
    found.copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let ms = |share| percentile(&times, share).as_millis();
        assert_eq!((ms(0.5), ms(0.99), ms(1.0)), (50, 99, 100));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn a_late_room_and_a_false_leave_are_faults() {
        let mut figures = Figures::default();
        figures.event(EventKind::Join, 0);
        figures.event(EventKind::RedisLoss, 3);
        let ms = |ms| Some(Duration::from_millis(ms));
        figures.known(EventKind::Join, ms(7), Duration::ZERO);
        assert!(figures.are_well());
        assert!(figures.to_string().contains("join"));
        figures.known(EventKind::Kill, None, Duration::ZERO);
        assert!(!figures.are_well());
        let mut figures = Figures::default();
        figures.known(EventKind::Join, ms(2_001), Duration::ZERO);
        assert!(!figures.are_well());
        let mut figures = Figures::default();
        figures.event(EventKind::Leave, 1);
        assert!(!figures.are_well());
    }
}

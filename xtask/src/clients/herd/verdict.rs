//! Compares what the clients report with the truth.

use super::histogram;
use super::members::room;
use super::report::Report;

/// The most faults that are shown.
const FAULTS_MAX: usize = 12;

/// A node that was restarted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restart {
    /// When it was asked to end, in milliseconds since 1970.
    pub(super) began: u64,
    /// The clients that it had then.
    pub(super) clients: usize,
}

/// The restart that led to a reconnect at this time; None: there was none yet.
pub(super) fn restart_before(restarts: &[Restart], time: u64) -> Option<usize> {
    restarts.iter().rposition(|restart| restart.began <= time)
}

/// Everything that is not as it should be, for people. `published` has the number of the last message to each room.
pub(super) fn faults(
    reports: &[(&'static str, Vec<Report>)],
    restarts: &[Restart],
    published: &[u64],
) -> Vec<String> {
    let all = || reports.iter().flat_map(|(_, reports)| reports);
    let mut faults: Vec<_> = all()
        .flat_map(|report| {
            let mut faults = rooms(report, published);
            faults.extend(reconnects(report, restarts));
            faults
        })
        .collect();
    faults.extend(moved(all(), restarts));
    faults.extend(attempts(all()));
    for (name, reports) in reports {
        let reconnects = histogram::reconnects(reports, restarts);
        if reconnects.has_spike() {
            let shares = reconnects.shares();
            faults.push(format!(
                "{name}: most reconnected at the same time: {shares} %"
            ));
        }
        let waits = histogram::waits(reports);
        if waits.has_spike() {
            let shares = waits.shares();
            faults.push(format!("{name}: most waited equally long: {shares} %"));
        }
    }
    let more = faults.len().saturating_sub(FAULTS_MAX);
    faults.truncate(FAULTS_MAX);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    faults
}

/// Every message of each room once, in order; everything recovered, and no errors.
fn rooms(report: &Report, published: &[u64]) -> Vec<String> {
    let user = &report.user;
    let mut faults = Vec::new();
    if !report.errors.is_empty() {
        faults.push(format!("{user}: {:?}", report.errors));
    }
    for (number, last) in published.iter().enumerate() {
        let name = room(number);
        let Some(room) = report.rooms.get(&name) else {
            continue;
        };
        let all = [(1, *last)];
        if room.numbers != all || room.offsets != all {
            faults.push(format!(
                "{user} in {name} got the messages {:?} with the offsets {:?} instead of 1 to {last}",
                room.numbers, room.offsets
            ));
        }
        if room.recovered.contains(&false) {
            faults.push(format!(
                "{user} in {name} did not recover: {:?}",
                room.recovered
            ));
        }
        if room.recovered.len() < report.reconnects().len() {
            faults.push(format!("{user} did not join {name} after each reconnect"));
        }
    }
    faults
}

/// At most one reconnect for each restart.
fn reconnects(report: &Report, restarts: &[Restart]) -> Vec<String> {
    let mut counts = vec![0; restarts.len()];
    let mut faults = Vec::new();
    for time in report.reconnects() {
        match restart_before(restarts, *time) {
            Some(restart) => counts[restart] += 1,
            None => faults.push(format!("{} reconnected before any restart", report.user)),
        }
    }
    if counts.iter().any(|count| *count > 1) {
        faults.push(format!(
            "{} reconnected {counts:?} times after the restarts",
            report.user
        ));
    }
    faults
}

/// Each restart moved the clients of its node, and nobody else.
fn moved<'r>(
    reports: impl Iterator<Item = &'r Report> + Clone,
    restarts: &[Restart],
) -> Vec<String> {
    let times = || reports.clone().flat_map(Report::reconnects);
    let fault = |(number, restart): (usize, &Restart)| {
        let count = times()
            .filter(|time| restart_before(restarts, **time) == Some(number))
            .count();
        (count != restart.clients).then(|| {
            format!(
                "restart {} moved {count} clients, and its node had {}",
                number + 1,
                restart.clients
            )
        })
    };
    restarts.iter().enumerate().filter_map(fault).collect()
}

/// Most attempts succeed: a balancer that is a little late leads a few clients to a node that drains.
fn attempts<'r>(reports: impl Iterator<Item = &'r Report> + Clone) -> Option<String> {
    let failed: usize = reports.clone().map(failed_attempts).sum();
    let succeeded: usize = reports.map(|report| report.connected.len()).sum();
    (failed > succeeded)
        .then(|| format!("{failed} attempts to connect failed, and only {succeeded} succeeded"))
}

/// The attempts of a client that led to no connection.
pub(super) fn failed_attempts(report: &Report) -> usize {
    report.attempts.saturating_sub(report.connected.len())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::report::RoomReport;
    use super::*;

    pub(in super::super) const RESTARTS: [Restart; 2] = [
        Restart {
            began: 10_000,
            clients: 1,
        },
        Restart {
            began: 20_000,
            clients: 1,
        },
    ];

    /// A client that is in one room, has its ten messages, and reconnected once after each restart.
    pub(in super::super) fn good() -> Report {
        let seen = RoomReport {
            joined: true,
            numbers: vec![(1, 10)],
            offsets: vec![(1, 10)],
            recovered: vec![true, true],
        };
        Report {
            user: "go-1".to_owned(),
            attempts: 3,
            connected: vec![1, 11_000, 23_000],
            waits: vec![200, 300],
            errors: Vec::new(),
            rooms: [(room(0), seen)].into(),
        }
    }

    fn faults_of(change: impl Fn(&mut Report, &mut RoomReport)) -> String {
        let mut report = good();
        let mut seen = report.rooms.remove(&room(0)).unwrap_or_default();
        change(&mut report, &mut seen);
        report.rooms.insert(room(0), seen);
        faults(&[("go", vec![report])], &RESTARTS, &[10]).join("; ")
    }

    #[test]
    fn a_client_with_every_message_and_one_reconnect_for_each_restart_is_good() {
        assert_eq!(faults_of(|_, _| {}), "");
    }

    #[test]
    fn every_kind_of_fault_is_named() {
        type Change = fn(&mut Report, &mut RoomReport);
        let cases: [(Change, &str); 9] = [
            (
                |_, room| room.numbers = vec![(1, 4), (6, 10)],
                "go-1 in history:0 got the messages",
            ),
            (
                |_, room| room.numbers = vec![(1, 4), (4, 10)],
                "got the messages",
            ),
            (
                |_, room| room.offsets = vec![(2, 11)],
                "with the offsets [(2, 11)]",
            ),
            (|_, room| room.numbers = vec![(1, 9)], "instead of 1 to 10"),
            (
                |_, room| room.recovered = vec![true, false],
                "did not recover",
            ),
            (
                |_, room| room.recovered = vec![true],
                "after each reconnect",
            ),
            (
                |report, _| report.connected = vec![1, 11_000, 12_000, 23_000],
                "reconnected [2, 1] times",
            ),
            (
                |report, _| report.connected = vec![1, 9_000, 11_000, 23_000],
                "before any restart",
            ),
            (
                |report, _| report.errors = vec!["timeout".to_owned()],
                "timeout",
            ),
        ];
        for (change, fault) in cases {
            let named = faults_of(change);
            assert!(named.contains(fault), "{fault}: {named}");
        }
    }

    #[test]
    fn a_restart_that_moves_other_clients_and_attempts_that_mostly_fail_are_faults() {
        let named = faults_of(|report, _| report.connected = vec![1, 11_000]);
        assert!(
            named.contains("restart 2 moved 0 clients, and its node had 1"),
            "{named}"
        );
        let named = faults_of(|report, _| report.attempts = 7);
        assert!(named.contains("4 attempts to connect failed"), "{named}");
    }
}

//! CPU time and memory of another process, from `/proc` (Linux, see proc(5)).

use std::fs;

use super::error::LoadError;

/// The resources that a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// User and system time of all its threads, in seconds, with the precision of a clock tick (usually 10 ms).
    pub(super) cpu_seconds: f64,
    /// Resident memory in bytes.
    pub(super) rss_bytes: u64,
}

impl Usage {
    /// The resources of two processes together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            rss_bytes: self.rss_bytes + other.rss_bytes,
        }
    }
}

/// Reads `/proc/PID/stat` and `/proc/PID/statm`.
pub(super) fn usage(pid: u32) -> Result<Usage, LoadError> {
    let ticks = parse_stat(&read(pid, "stat")?).ok_or(LoadError::Process { pid, what: "stat" })?;
    let pages =
        parse_statm(&read(pid, "statm")?).ok_or(LoadError::Process { pid, what: "statm" })?;
    Ok(Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_bytes: pages * rustix::param::page_size() as u64,
    })
}

/// User and system time of all threads of a process, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64, LoadError> {
    usage(pid).map(|usage| usage.cpu_seconds)
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, LoadError> {
    usage(pid).map(|usage| usage.rss_bytes)
}

fn read(pid: u32, what: &'static str) -> Result<String, LoadError> {
    fs::read_to_string(format!("/proc/{pid}/{what}")).map_err(|_| LoadError::Process { pid, what })
}

/// Sums fields 14 and 15, utime and stime, in clock ticks. Field 2 is the program's name in parentheses, which may
/// itself contain blanks and parentheses, so counting starts after the last one.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_statm(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 9 8 7";
        assert_eq!(parse_stat(stat), Some(200));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_statm("100 42 3 4 0 5 0"), Some(42));
    }

    #[test]
    fn this_process_uses_memory_and_a_pid_out_of_range_is_an_error() {
        assert!(usage(std::process::id()).is_ok_and(|usage| usage.rss_bytes > 100_000));
        assert!(usage(u32::MAX).is_err());
    }
}

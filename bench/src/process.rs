//! CPU time and memory of other processes, from `/proc` (Linux, see proc(5)), and the limit of open files of this one.

use std::fs;

use anyhow::Context as _;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process needs in addition to its connections: standard streams, epoll, event descriptors, `/proc`.
const FILES_BESIDE_CONNECTIONS: u64 = 64;

/// The resources that processes have used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system time of all threads, in seconds, with the precision of a clock tick (usually 10 ms).
    pub(crate) cpu_seconds: f64,
    /// Resident memory in bytes.
    pub(crate) rss_bytes: u64,
}

/// Reads `/proc/PID/stat` and `/proc/PID/statm`.
pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let read = |file: &str, parse: fn(&str) -> Option<u64>| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        text.and_then(|text| parse(&text)).with_context(|| {
            format!("cannot read /proc/{pid}/{file}; --cpu-pid must be the id of a running process on this machine")
        })
    };
    Ok(Usage {
        cpu_seconds: read("stat", parse_stat)? as f64 / clock_ticks_per_second() as f64,
        rss_bytes: read("statm", parse_statm)? * page_size() as u64,
    })
}

/// Sums fields 14 and 15, utime and stime, in clock ticks. Field 2 is the program's name in parentheses, which may
/// itself contain blanks and parentheses, so counting starts after the last one.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let times = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    times.sum::<Result<_, _>>().ok()
}

fn parse_statm(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

/// Raises the soft limit of open files, which every connection counts against, to the hard limit. Warns on stderr if that
/// fails or is not enough for `connections`.
pub fn raise_open_files_limit(connections: Option<usize>) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let mut allowed = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        allowed = limit.current;
        eprintln!(
            "warning: cannot raise the limit of open files: {error}; try `ulimit -n` in the shell"
        );
    }
    if let (Some(connections), Some(allowed)) = (connections, allowed) {
        let needed = connections as u64 + FILES_BESIDE_CONNECTIONS;
        if needed > allowed {
            eprintln!(
                "warning: {connections} connections need {needed} open files and {allowed} are allowed; \
                 raise the hard limit (`ulimit -Hn`) or ask for fewer connections"
            );
        }
    }
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

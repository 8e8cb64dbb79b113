//! The machine that the figures were measured on.

use std::fmt;
use std::fs;

use serde::Serialize;

/// Open files that a server needs in addition to its connections: listener, epoll, log, plugin files.
const FILES_BESIDE_CONNECTIONS: usize = 256;

/// The facts about the machine that a reader of the figures must know.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, cpu, kernel } = self;
        write!(f, "{cores} cores of {cpu}, kernel {kernel}")
    }
}

/// Reads the facts from the system.
pub(crate) fn describe() -> Machine {
    let read = |file, parse: fn(&str) -> Option<String>| {
        let text = fs::read_to_string(file).ok();
        let fact = text.and_then(|text| parse(&text));
        fact.unwrap_or_else(|| "unknown".to_owned())
    };
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: read("/proc/cpuinfo", cpu_model),
        kernel: read("/proc/sys/kernel/osrelease", |text| {
            Some(text.trim().to_owned())
        }),
    }
}

/// Number of connections that the hard limit of open files allows one process; unbounded if the limit is not known.
pub(crate) fn connections_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    open_files_max(&limits).map_or(usize::MAX, |files| {
        files.saturating_sub(FILES_BESIDE_CONNECTIONS)
    })
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let (_, model) = lines.find(|(name, _)| name.starts_with("model name"))?;
    Some(model.trim().to_owned())
}

/// The hard limit; `None` if it is `unlimited` or missing.
fn open_files_max(limits: &str) -> Option<usize> {
    let mut lines = limits.lines();
    let line = lines.find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let cpu = cpu_model("processor\t: 0\nmodel name\t: A CPU\n");
        assert_eq!(cpu.as_deref(), Some("A CPU"));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files_max(limits), Some(524_288));
        assert_eq!(
            open_files_max("Max open files  1024  unlimited  files"),
            None
        );
    }
}

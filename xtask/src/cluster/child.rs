//! A process that runs until it is stopped, and whose output lines are sent to a channel.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Time limit for a server to listen, on a busy machine: the first start compiles the plugins.
const START_TIME_MAX: Duration = Duration::from_secs(180);

/// The number of lines that explain why another one did not come.
const LAST_LINES_MAX: usize = 20;

/// An event while processes run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process printed a line.
    Line {
        /// The process.
        name: String,
        /// The line.
        text: String,
        /// When it was read.
        at: Instant,
    },
    /// Ctrl-C, or another signal that asks this program to end.
    Interrupted,
}

/// A process. It is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: process::Child,
}

impl Child {
    /// Starts a process whose output lines are sent to `events`.
    pub(crate) fn start(
        name: String,
        mut command: Command,
        events: &Sender<Event>,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let started = command.stderr(Stdio::piped()).spawn();
        let mut process = started.with_context(|| {
            let program = command.get_program().display();
            format!("cannot start {program} for {name}")
        })?;
        if let Some(output) = process.stdout.take() {
            pass_on(&name, output, events);
        }
        if let Some(output) = process.stderr.take() {
            pass_on(&name, output, events);
        }
        Ok(Self { name, process })
    }

    /// Its name in the printed output.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The ID of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // The status can be queried as long as this value exists.
        self.process.try_wait().ok().flatten()
    }

    /// Asks the process to end.
    pub(crate) fn terminate(&mut self) {
        if self.ended().is_none() {
            // Fails only if it has ended in the meantime.
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        }
    }

    /// Kills the process at once.
    pub(super) fn kill(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends the lines of an output to `events`.
pub(crate) fn pass_on(name: &str, output: impl Read + Send + 'static, events: &Sender<Event>) {
    let (name, events) = (name.to_owned(), events.clone());
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let (name, at) = (name.clone(), Instant::now());
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            // Reads to the end even if nobody prints: a process blocks if nobody reads its output.
            let _ = events.send(Event::Line { name, text, at });
            line.clear();
        }
    });
}

/// Waits for a line for which `find`, called with the text and the time, returns `Some`.
pub(crate) fn wait_for_line<T>(
    log: &Receiver<Event>,
    time_max: Duration,
    find: impl Fn(&str, Instant) -> Option<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + time_max;
    let mut lines = Vec::new();
    while let Ok(event) = log.recv_timeout(end.saturating_duration_since(Instant::now())) {
        let Event::Line { text, at, .. } = event else {
            continue;
        };
        if let Some(found) = find(&text, at) {
            return Ok(found);
        }
        lines.push(text);
    }
    let last = &lines[lines.len().saturating_sub(LAST_LINES_MAX)..];
    bail!(
        "the line did not come within {time_max:?}; the last output was:\n{}",
        last.join("\n")
    )
}

/// Reads the address that a server listens on from its log.
pub(crate) fn server_address(log: &Receiver<Event>) -> anyhow::Result<SocketAddr> {
    wait_for_line(log, START_TIME_MAX, |line, _| listening_address(line))
        .context("the server does not say where it listens")
}

/// The address in a line that contains `listening`, in text or in JSON.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening")?;
    let address = |text: &str| {
        let part_of_address = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
        let mut words = text.split(|c: char| !part_of_address(c));
        words.find_map(|word| word.parse().ok())
    };
    // In text the address follows the word; in JSON the fields may come in any order.
    address(rest).or_else(|| address(line))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn the_address_is_found_in_text_and_in_json() {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 4711)));
        for line in [
            "listening on 127.0.0.1:4711",
            "2026-01-01T20:48:32.123456Z  INFO signalbox: listening addr=127.0.0.1:4711 node=a",
            r#"{"timestamp":"2026-01-01T20:48:32Z","level":"INFO","fields":{"message":"listening","addr":"127.0.0.1:4711"}}"#,
            r#"{"addr":"127.0.0.1:4711","message":"listening on http","timestamp":"2026-01-01T20:48:32Z"}"#,
        ] {
            assert_eq!(listening_address(line), address, "{line}");
        }
        let v6 = listening_address("listening on [::1]:80");
        assert_eq!(v6, "[::1]:80".parse().ok());
        assert_eq!(listening_address("started on 127.0.0.1:4711"), None);
        assert_eq!(listening_address("listening soon, at 20:48:32"), None);
    }

    #[test]
    fn a_line_that_does_not_come_is_an_error_with_the_last_output() {
        let (events, log) = channel();
        pass_on("a", &b"one\ntwo\n"[..], &events);
        drop(events);
        let find = |line: &str, _| (line == "one").then_some(());
        assert!(wait_for_line(&log, START_TIME_MAX, find).is_ok());
        let error = wait_for_line(&log, START_TIME_MAX, find).expect_err("it came once");
        assert!(error.to_string().ends_with("was:\ntwo"), "{error}");
    }
}

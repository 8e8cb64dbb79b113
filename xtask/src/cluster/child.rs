//! A process that runs until it is stopped, and whose output lines are sent to a channel.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// An event while processes run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process printed a line.
    Line {
        /// The process.
        name: String,
        /// The line.
        text: String,
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
    /// Starts a process whose output lines are sent to `events`. Ctrl-C on the terminal does not reach it.
    pub(crate) fn start(
        name: String,
        mut command: Command,
        events: &Sender<Event>,
    ) -> anyhow::Result<Self> {
        let mut process = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
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

fn pass_on(name: &str, output: impl Read + Send + 'static, events: &Sender<Event>) {
    let (name, events) = (name.to_owned(), events.clone());
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let name = name.clone();
            // Reads to the end even if nobody prints: a process blocks if nobody reads its output.
            let _ = events.send(Event::Line { name, text });
            line.clear();
        }
    });
}

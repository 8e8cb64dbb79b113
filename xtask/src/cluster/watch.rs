//! Prints the output of processes while waiting for something, and notices if one of them ends.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::child::{Child, Event};

/// Time between two checks of the processes.
const TICK: Duration = Duration::from_millis(50);

/// Prints the output of processes.
pub(super) struct Watch<W = io::Stdout> {
    events: Receiver<Event>,
    output: W,
}

impl Watch {
    /// Prints to standard output.
    pub(super) fn new(events: Receiver<Event>) -> Self {
        Self {
            events,
            output: io::stdout(),
        }
    }
}

impl<W: Write> Watch<W> {
    /// Waits until `is_done`, and returns `false` if the user wants everything to end instead. It is an error if a process
    /// ends, or if it takes too long.
    pub(super) fn wait(
        &mut self,
        running: &mut [Child],
        time_max: Duration,
        mut is_done: impl FnMut() -> bool,
    ) -> anyhow::Result<bool> {
        let begun = Instant::now();
        loop {
            for child in running.iter_mut() {
                if let Some(status) = child.ended() {
                    // Its last lines say why.
                    self.print_for(TICK);
                    bail!("{} ended with {status}", child.name());
                }
            }
            if is_done() {
                return Ok(true);
            }
            ensure!(begun.elapsed() < time_max, "not ready after {time_max:?}");
            if self.print_for(TICK) {
                return Ok(false);
            }
        }
    }

    /// Asks the processes to end and waits until they have. Kills those that are still running when the time is over,
    /// or at an interrupt.
    pub(super) fn stop(&mut self, running: &mut [Child], time_max: Duration) {
        let begun = Instant::now();
        running.iter_mut().for_each(Child::terminate);
        while running.iter_mut().any(|child| child.ended().is_none()) {
            if self.print_for(TICK) || begun.elapsed() >= time_max {
                running.iter_mut().for_each(Child::kill);
            }
        }
        self.print_for(Duration::ZERO);
    }

    /// Prints the lines that arrive within this time, and at once those that arrived before. Returns whether there was
    /// an interrupt, which ends the wait.
    fn print_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Line { name, text, .. }) => {
                    // If the reader of the output is gone, that is no reason to stop.
                    let _ = writeln!(self.output, "{name:<5} | {text}");
                }
                Ok(Event::Interrupted) => return true,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::process::Command;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Longer than any step takes.
    const PATIENCE: Duration = Duration::from_secs(120);

    fn watch() -> (Sender<Event>, Watch<Vec<u8>>) {
        let (sender, events) = channel();
        let output = Vec::new();
        (sender, Watch { events, output })
    }

    fn shell(name: &str, script: &str, events: &Sender<Event>) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::start(name.to_owned(), command, events).expect("a shell")
    }

    /// Waits for a line; the tests' processes begin by printing one.
    fn until_line(watch: &mut Watch<Vec<u8>>, running: &mut [Child], line: &str) {
        let begun = Instant::now();
        while !printed(watch).contains(line) {
            assert!(begun.elapsed() < PATIENCE, "no {line:?}");
            let checked = Cell::new(false);
            let once = || checked.replace(true);
            watch.wait(running, PATIENCE, once).expect("it runs");
        }
    }

    fn printed(watch: &Watch<Vec<u8>>) -> String {
        String::from_utf8_lossy(&watch.output).into_owned()
    }

    #[test]
    fn lines_are_printed_with_the_name_of_their_process() {
        let (events, mut watch) = watch();
        let wait = "exec sleep 60";
        let mut running = [
            shell("a", &format!("echo one; {wait}"), &events),
            shell("redis", &format!("echo two >&2; {wait}"), &events),
        ];
        until_line(&mut watch, &mut running, "a     | one\n");
        until_line(&mut watch, &mut running, "redis | two\n");
    }

    #[test]
    fn a_process_that_ends_by_itself_is_an_error_after_its_last_line() {
        let (events, mut watch) = watch();
        let mut running = [shell("a", "echo why; exit 3", &events)];
        let waited = watch.wait(&mut running, PATIENCE, || false);
        let error = waited.expect_err("it has ended");
        assert!(error.to_string().starts_with("a ended with"), "{error}");
        assert!(printed(&watch).contains("why"));
    }

    #[test]
    fn a_wait_ends_by_its_condition_an_interrupt_or_a_timeout() {
        let (events, mut watch) = watch();
        let mut wait = |time_max, done| watch.wait(&mut [], time_max, || done).ok();
        assert_eq!(wait(PATIENCE, true), Some(true));
        assert_eq!(wait(Duration::ZERO, false), None);
        events.send(Event::Interrupted).expect("somebody listens");
        assert_eq!(wait(PATIENCE, false), Some(false));
    }

    #[test]
    fn processes_are_asked_to_end_and_may_say_something_more() {
        let (events, mut watch) = watch();
        let script = "trap 'echo draining; exit 0' TERM; echo up; while :; do sleep 0.01; done";
        let mut running = [shell("a", script, &events), shell("b", script, &events)];
        until_line(&mut watch, &mut running, "a     | up");
        until_line(&mut watch, &mut running, "b     | up");
        watch.stop(&mut running, PATIENCE);
        for child in &mut running {
            assert!(child.ended().is_some_and(|status| status.success()));
        }
        for name in ["a", "b"] {
            while !printed(&watch).contains(&format!("{name}     | draining")) {
                watch.print_for(TICK);
            }
        }
    }

    #[test]
    fn a_process_that_does_not_end_is_ended_by_an_interrupt_or_when_the_time_is_over() {
        let (events, mut watch) = watch();
        let script = "trap '' TERM; echo up; while :; do sleep 0.01; done";
        for time_max in [PATIENCE, Duration::ZERO] {
            let mut running = [shell("a", script, &events)];
            watch.output.clear();
            until_line(&mut watch, &mut running, "a     | up");
            if time_max == PATIENCE {
                events.send(Event::Interrupted).expect("somebody listens");
            }
            watch.stop(&mut running, time_max);
            let status = running[0].ended().expect("it has ended");
            assert!(!status.success());
        }
    }
}

//! The process of an SDK that does what a case tells it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value};

use super::PATIENCE;

/// The most lines of standard error that a failure shows.
const COMPLAINTS_MAX: usize = 20;

/// A driver, and all that it has reported. It is killed when this value is dropped.
pub(super) struct Driver {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Line>,
    commands: u64,
    /// The events in their order.
    pub(super) events: Vec<Value>,
    answers: BTreeMap<u64, Value>,
    complaints: Vec<String>,
}

enum Line {
    Output(String),
    Complaint(String),
}

impl Driver {
    pub(super) fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let (sender, lines) = channel();
        if let Some(output) = process.stdout.take() {
            pass_on(output, &sender, Line::Output);
        }
        if let Some(output) = process.stderr.take() {
            pass_on(output, &sender, Line::Complaint);
        }
        Ok(Self {
            input: process.stdin.take(),
            process,
            lines,
            commands: 0,
            events: Vec::new(),
            answers: BTreeMap::new(),
            complaints: Vec::new(),
        })
    }

    /// Sends a command, and returns its number.
    pub(super) fn send(&mut self, mut command: Map<String, Value>) -> anyhow::Result<u64> {
        self.commands += 1;
        command.insert("n".to_owned(), self.commands.into());
        let line = format!("{}\n", Value::Object(command));
        let input = self.input.as_mut().context("its input is closed")?;
        input
            .write_all(line.as_bytes())
            .context("the driver takes no commands")?;
        Ok(self.commands)
    }

    /// Waits for the answer to a command.
    pub(super) fn answer(&mut self, number: u64) -> anyhow::Result<Value> {
        self.until("no answer came", |driver| {
            driver.answers.get(&number).cloned()
        })
    }

    /// Sends a command, and returns the value that answers it.
    pub(super) fn ask(&mut self, command: Map<String, Value>) -> anyhow::Result<Value> {
        let number = self.send(command)?;
        self.until("no answer came", |driver| {
            driver.answers.contains_key(&number).then_some(())
        })?;
        let mut answer = self.answers.remove(&number).unwrap_or_default();
        let error = &answer["error"];
        ensure!(error.is_null(), "the answer is {error}");
        Ok(answer["ok"].take())
    }

    /// Waits until everything is here that the driver reported before now.
    pub(super) fn catch_up(&mut self) -> anyhow::Result<()> {
        let state = Map::from_iter([("do".to_owned(), "state".into())]);
        let number = self.send(state)?;
        self.answer(number).map(drop)
    }

    /// Reads lines until `find` finds something in what has been read.
    pub(super) fn until<T>(
        &mut self,
        otherwise: &'static str,
        mut find: impl FnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find(self) {
                return Ok(found);
            }
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.take(line)?,
                Err(RecvTimeoutError::Timeout) => bail!("{otherwise} within {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("{otherwise}: the driver has ended"),
            }
        }
    }

    fn take(&mut self, line: Line) -> anyhow::Result<()> {
        let text = match line {
            Line::Output(text) => text,
            Line::Complaint(text) => {
                if self.complaints.len() < COMPLAINTS_MAX {
                    self.complaints.push(text);
                }
                return Ok(());
            }
        };
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("the driver printed no JSON: {text}"))?;
        if let Some(number) = value["n"].as_u64() {
            self.answers.insert(number, value);
        } else {
            ensure!(value["event"].is_string(), "not of the protocol: {text}");
            self.events.push(value);
        }
        Ok(())
    }

    /// Stops the process for some time, as a computer that sleeps does.
    pub(super) fn pause(&self, time: Duration) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::STOP).context("the driver cannot be stopped")?;
        thread::sleep(time);
        kill_process(pid, Signal::CONT).context("the driver cannot be continued")
    }

    /// The files and sockets that the process has open.
    pub(super) fn open_files(&self) -> anyhow::Result<usize> {
        let folder = format!("/proc/{}/fd", self.process.id());
        Ok(fs::read_dir(folder)?.count())
    }

    /// Ends its input, and waits until it has ended well.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        self.input = None;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "the driver ended with {status}");
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "the driver holds something after its input has ended, and does not end"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its reports so far, for people.
    pub(super) fn story(&mut self) -> String {
        while let Ok(line) = self.lines.try_recv() {
            // A failure is being reported already.
            let _ = self.take(line);
        }
        let last = self.events.len().saturating_sub(15);
        let events = self.events[last..].iter().map(Value::to_string);
        let complaints = self.complaints.iter().cloned();
        events.chain(complaints).collect::<Vec<_>>().join("\n    ")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pass_on(output: impl Read + Send + 'static, lines: &Sender<Line>, wrap: fn(String) -> Line) {
    let lines = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(wrap(line)).is_err() {
                return;
            }
        }
    });
}

//! A case at work: its server, proxy, driver and other users.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value, json};

use super::PATIENCE;
use super::cases::{Case, DriverStep, ServerStep, Step};
use super::driver::Driver;
use super::pattern::matches;
use super::peer::Peer;
use super::proxy::Proxy;
use super::server::Server;

/// Time between two looks at the proxy's record.
const TICK: Duration = Duration::from_millis(5);

/// All that a case needs. It ends when this value is dropped.
pub(super) struct Scene {
    driver: Driver,
    proxy: Proxy,
    server: Server,
    peers: BTreeMap<String, Peer>,
    /// The numbers of commands by the names that the case gives them.
    commands: BTreeMap<String, u64>,
    /// The first event, and the first frame, that was not waited for.
    next_event: usize,
    next_sent: usize,
    files: usize,
}

impl Scene {
    /// Starts everything for `case`. The server's files are in `folder`.
    pub(super) fn start(
        case: &Case,
        program: &Path,
        driver: Command,
        folder: PathBuf,
    ) -> anyhow::Result<Self> {
        let server = Server::start(program, folder, case)?;
        let proxy = Proxy::start(server.address)?;
        Ok(Self {
            driver: Driver::start(driver)?,
            proxy,
            server,
            peers: BTreeMap::new(),
            commands: BTreeMap::new(),
            next_event: 0,
            next_sent: 0,
            files: 0,
        })
    }

    /// Does all steps, and then ends the driver, which must hold nothing.
    pub(super) fn play(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        self.steps(steps)
            .and_then(|()| self.driver.end())
            .with_context(|| {
                format!(
                    "\n    {}\n    the server's log:\n    {}\n    ",
                    self.driver.story(),
                    self.server.story()
                )
            })
    }

    fn steps(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        for (index, step) in steps.iter().enumerate() {
            self.step(step)
                .with_context(|| format!("step {}, {step:?}", index + 1))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Driver(step) => self.command(step),
            Step::Answer { to, is } => {
                let number = *self.commands.get(to).context("no command has this name")?;
                self.expect_answer(number, is)
            }
            Step::Expect(pattern) => self.expect(pattern),
            Step::Messages { room, payloads } => self.expect_messages(room.as_deref(), payloads),
            Step::Never(pattern) => self.expect_count(pattern, 0),
            Step::Count { of, is } => self.expect_count(of, *is),
            Step::Proxy(command) => {
                self.proxy.obey(command);
                Ok(())
            }
            Step::Seen(pattern) => self.expect_seen(pattern),
            Step::Sent(pattern) => self.expect_sent(pattern),
            Step::SentCount { of, is } => self.expect_sent_count(of, *is),
            Step::Server(step) => self.change_server(*step),
            Step::Api { method, path, body } => self.server.call((method, path), body).map(drop),
            Step::Peer { .. } => self.peer(step),
            Step::Pause(ms) => self.driver.pause(Duration::from_millis(*ms)),
            Step::Quiet(ms) => {
                thread::sleep(Duration::from_millis(*ms));
                Ok(())
            }
            Step::Repeat { times, steps } => (0..*times).try_for_each(|time| {
                self.steps(steps)
                    .with_context(|| format!("repetition {}", time + 1))
            }),
            Step::RememberFiles => {
                self.driver.catch_up()?;
                self.files = self.driver.open_files()?;
                Ok(())
            }
            Step::SameFiles => self.expect_same_files(),
        }
    }

    fn command(&mut self, step: &DriverStep) -> anyhow::Result<()> {
        let DriverStep {
            name,
            answer,
            command,
        } = step;
        let mut command = self.fill_in(command)?;
        if command.get("do") == Some(&"open".into()) {
            command
                .entry("url")
                .or_insert_with(|| self.proxy.url().into());
        }
        let number = self.driver.send(command)?;
        if let Some(name) = name {
            self.commands.insert(name.clone(), number);
        }
        match answer {
            Some(answer) => self.expect_answer(number, answer),
            None => Ok(()),
        }
    }

    /// Replaces `$token:USER:TIME`, `$token:USER:TIME:ROOM` and `$text:LENGTH`.
    fn fill_in(&self, command: &Map<String, Value>) -> anyhow::Result<Map<String, Value>> {
        let replace = |value: &Value| -> anyhow::Result<Value> {
            // The name of a room may have colons.
            let words: Vec<_> = value.as_str().unwrap_or_default().splitn(4, ':').collect();
            match words[..] {
                ["$token", user, time] => Ok(self.server.token(user, time, None)?.into()),
                ["$token", user, time, room] => {
                    Ok(self.server.token(user, time, Some(room))?.into())
                }
                ["$text", length] => Ok("x".repeat(length.parse()?).into()),
                _ => Ok(value.clone()),
            }
        };
        let fields = command.iter().map(|(name, value)| {
            let value = match value {
                Value::Array(items) => items.iter().map(replace).collect::<Result<_, _>>()?,
                value => replace(value)?,
            };
            Ok((name.clone(), value))
        });
        fields.collect()
    }

    fn expect_answer(&mut self, number: u64, pattern: &Value) -> anyhow::Result<()> {
        let answer = self.driver.answer(number)?;
        ensure!(matches(pattern, &answer), "the answer is {answer}");
        Ok(())
    }

    fn expect(&mut self, pattern: &Value) -> anyhow::Result<()> {
        let from = self.next_event;
        self.next_event = self.driver.until("no such event came", |driver| {
            let events = driver.events.iter().enumerate().skip(from);
            let mut found = events.filter(|(_, event)| matches(pattern, event));
            found.next().map(|(index, _)| index + 1)
        })?;
        Ok(())
    }

    fn expect_messages(&mut self, room: Option<&str>, payloads: &[Value]) -> anyhow::Result<()> {
        let of_room =
            |event: &&Value| event["event"] == "message" && event["room"].as_str() == room;
        self.driver.until("not as many messages came", |driver| {
            let count = driver.events.iter().filter(of_room).count();
            (count >= payloads.len()).then_some(())
        })?;
        self.driver.catch_up()?;
        let events = self.driver.events.iter().filter(of_room);
        let came: Vec<_> = events.map(|event| event["payload"].clone()).collect();
        ensure!(came == payloads, "the messages are {came:?}");
        Ok(())
    }

    fn expect_count(&mut self, pattern: &Value, count: usize) -> anyhow::Result<()> {
        let count_of = |driver: &Driver| {
            let events = driver.events.iter();
            events.filter(|event| matches(pattern, event)).count()
        };
        self.driver.until("not as many events came", |driver| {
            (count_of(driver) >= count).then_some(())
        })?;
        self.driver.catch_up()?;
        let came = count_of(&self.driver);
        ensure!(came == count, "there are {came} such events");
        Ok(())
    }

    fn expect_seen(&self, pattern: &Value) -> anyhow::Result<()> {
        until(|| matches(pattern, &self.proxy.seen()))
            .with_context(|| format!("the proxy has seen {}", self.proxy.seen()))
    }

    fn expect_sent(&mut self, pattern: &Value) -> anyhow::Result<()> {
        let from = self.next_sent;
        let find = || {
            let frames = self.proxy.sent(from);
            frames.iter().position(|frame| matches(pattern, frame))
        };
        until(|| find().is_some())
            .with_context(|| format!("the client has sent {:?}", self.proxy.sent(from)))?;
        self.next_sent = from + find().unwrap_or_default() + 1;
        Ok(())
    }

    fn expect_sent_count(&self, pattern: &Value, count: usize) -> anyhow::Result<()> {
        let sent = || {
            let frames = self.proxy.sent(0);
            frames
                .iter()
                .filter(|frame| matches(pattern, frame))
                .count()
        };
        until(|| sent() >= count).with_context(|| format!("{} such frames were sent", sent()))?;
        ensure!(sent() == count, "{} such frames were sent", sent());
        Ok(())
    }

    fn change_server(&mut self, step: ServerStep) -> anyhow::Result<()> {
        match step {
            ServerStep::Kill => {
                self.peers.clear();
                self.server.kill();
            }
            ServerStep::Drain => {
                self.peers.clear();
                self.server.drain()?;
            }
            ServerStep::Start => {
                self.server.run()?;
                self.proxy.set_server(self.server.address);
            }
        }
        Ok(())
    }

    fn peer(&mut self, step: &Step) -> anyhow::Result<()> {
        let Step::Peer {
            user,
            send,
            receive,
            disconnect,
        } = step
        else {
            bail!("not a step of a peer");
        };
        let peer = match self.peers.entry(user.clone()) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Peer::connect(self.server.address, user)?)
            }
        };
        if let Some(frame) = send {
            peer.send(frame)?;
        }
        if let Some(pattern) = receive {
            peer.receive(pattern)?;
        }
        if *disconnect {
            self.peers.remove(user);
        }
        Ok(())
    }

    fn expect_same_files(&mut self) -> anyhow::Result<()> {
        self.driver.catch_up()?;
        let same = || {
            let open = self.driver.open_files();
            open.is_ok_and(|open| open <= self.files)
        };
        until(same).with_context(|| {
            let now = self.driver.open_files().unwrap_or_default();
            json!({"before": self.files, "now": now}).to_string()
        })
    }
}

/// Waits until `is_so`.
fn until(is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        ensure!(
            Instant::now() < end,
            "this did not happen within {PATIENCE:?}"
        );
        thread::sleep(TICK);
    }
    Ok(())
}

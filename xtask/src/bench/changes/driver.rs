//! Changes the plugins: carries out each kind of change from its start until its result is known.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::admin::Admin;
use super::ledger::Ledger;
use super::{CHAT, TALLY};
use crate::bench::subject::{Fields, Subject};
use crate::bench::swap::replace;
use crate::builds;

/// Time limit for a step of a change. It is far longer than a step takes, so that a slow step is measured instead of
/// failing.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);

/// Interval for checking whether a version has finished its last calls.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The placeholder for a stamp in the component `tally`, and the prefix of the stamp of a version that traps.
const STAMP: &[u8] = b"STAMP-0000000000";
const STAMP_OF_TRAPS: &str = "STAMP-trap-";

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A version is pushed, and is live for all users at once.
    Swap,
    /// A version is loaded from its file, is tried on a share of the users, and goes live.
    Canary,
    /// A version that traps after a while is pushed, and the previous one comes back by itself.
    RollBack,
    /// The plugin that keeps its state in memory hands it over to a new version.
    Handover,
}

impl Kind {
    /// All kinds, in the order in which they take turns.
    pub(super) const TURNS: [Self; 4] = [Self::Swap, Self::Canary, Self::RollBack, Self::Handover];
}

/// The components that versions are built from.
pub(super) struct Components {
    pub(super) chat: Vec<u8>,
    pub(super) tally: Vec<u8>,
    /// The file of the plugin `chat` that the server watches.
    pub(super) chat_file: PathBuf,
}

/// The server, and what is known about its plugins.
pub(super) struct Driver<'s> {
    subject: &'s Subject,
    admin: Admin,
    components: Components,
    /// The number of builds so far, which tells them apart.
    builds: u32,
    pub(super) chat: Ledger,
    pub(super) tally: Ledger,
    /// The count of the plugin `tally` at its last handover.
    pub(super) counted: u64,
    /// How long messages were held by each handover, in milliseconds.
    pub(super) held_ms: Vec<f64>,
}

impl<'s> Driver<'s> {
    pub(super) fn new(subject: &'s Subject, key: &'static str, components: Components) -> Self {
        Self {
            admin: Admin {
                address: subject.address,
                key,
            },
            subject,
            components,
            builds: 0,
            chat: Ledger::default(),
            tally: Ledger::default(),
            counted: 0,
            held_ms: Vec::new(),
        }
    }

    /// Makes one change.
    pub(super) fn change(&mut self, kind: Kind) -> anyhow::Result<()> {
        match kind {
            Kind::Swap => self.swap(),
            Kind::Canary => self.canary(),
            Kind::RollBack => self.roll_back(),
            Kind::Handover => self.hand_over(),
        }
        .with_context(|| format!("change {} ({kind:?}) failed", self.builds))
    }

    fn swap(&mut self) -> anyhow::Result<()> {
        let build = self.build_of_chat();
        self.admin.push(CHAT, &build)?;
        self.settle(CHAT).map(drop)
    }

    fn canary(&mut self) -> anyhow::Result<()> {
        let build = self.build_of_chat();
        replace(&self.components.chat_file, &build).context("cannot write the plugin's file")?;
        for said in ["plugin rollout began", "plugin swapped"] {
            self.wait_for(CHAT, |message| (message == said).then_some(()))?;
        }
        self.settle(CHAT).map(drop)
    }

    fn roll_back(&mut self) -> anyhow::Result<()> {
        self.builds += 1;
        let build = trapping(&self.components.tally, self.builds)?;
        let bad = self.admin.push(CHAT, &build)?;
        // Record the calls of the good version now: they are no longer shown once it is back.
        let live = self.settle(CHAT)?;
        ensure!(
            live == bad,
            "the version was taken back before it was seen live"
        );
        let is_back = |message: &str| message.starts_with("plugin rolled back").then_some(());
        self.wait_for(CHAT, is_back)?;
        let live = self.settle(CHAT)?;
        ensure!(live != bad, "the version that traps is live yet");
        Ok(())
    }

    /// Hands the count over, and checks that it arrived complete.
    pub(super) fn hand_over(&mut self) -> anyhow::Result<()> {
        self.builds += 1;
        let build = builds::numbered(&self.components.tally, self.builds);
        self.admin.push(TALLY, &build)?;
        let number = |message: &str, verb: &str| message.strip_prefix(verb)?.parse::<u64>().ok();
        let saved = self.wait_for(TALLY, |message| number(message, "saved "))?;
        let restored = self.wait_for(TALLY, |message| number(message, "restored "))?;
        ensure!(
            restored == saved && saved >= self.counted,
            "{saved} was saved and {restored} restored, after {}",
            self.counted
        );
        self.counted = saved;
        let held = self.subject.wait_for_line(STEP_TIME_MAX, |line, _| {
            let fields = Fields::of(line)?;
            (fields.get("message")? == "state handed over").then(|| fields.get("held_ms")?.as_f64())
        })?;
        let held = held.context("the server does not say how long messages were held")?;
        self.held_ms.push(held);
        self.settle(TALLY).map(drop)
    }

    /// Records the calls of the plugin's versions, once those that are not live have finished their calls. Returns the
    /// live version.
    fn settle(&mut self, plugin: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + STEP_TIME_MAX;
        let ledger = match plugin {
            CHAT => &mut self.chat,
            _ => &mut self.tally,
        };
        loop {
            let shown = self.admin.plugin(plugin)?;
            if ledger.note(&shown)? {
                let live = shown["live"].as_str().map(str::to_owned);
                return live.with_context(|| format!("{plugin} has no live version"));
            }
            ensure!(
                Instant::now() < deadline,
                "a version of {plugin} has calls under way for {STEP_TIME_MAX:?}"
            );
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Records the final calls of both plugins, once nothing is sent any more.
    pub(super) fn settle_all(&mut self) -> anyhow::Result<()> {
        self.settle(CHAT)?;
        self.settle(TALLY).map(drop)
    }

    /// Waits for a line of the server about the plugin for whose message `find` returns `Some`.
    fn wait_for<T>(&self, plugin: &str, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        self.subject.wait_for_line(STEP_TIME_MAX, |line, _| {
            let fields = Fields::of(line)?;
            let about = fields.get("plugin")? == plugin;
            let message = fields.get("message")?.as_str().filter(|_| about);
            message.and_then(&find)
        })
    }

    fn build_of_chat(&mut self) -> Vec<u8> {
        self.builds += 1;
        builds::numbered(&self.components.chat, self.builds)
    }
}

impl Components {
    /// Reads the components, and writes `chat` to the file that the server watches.
    pub(super) fn read(
        chat: &PathBuf,
        tally: &PathBuf,
        chat_file: PathBuf,
    ) -> anyhow::Result<Self> {
        let read = |file: &PathBuf| {
            fs::read(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let (chat, tally) = (read(chat)?, read(tally)?);
        replace(&chat_file, &chat)
            .with_context(|| format!("cannot write {}", chat_file.display()))?;
        Ok(Self {
            chat,
            tally,
            chat_file,
        })
    }
}

/// Makes a version of `tally` that traps after a while. `number` tells it from others.
fn trapping(tally: &[u8], number: u32) -> anyhow::Result<Vec<u8>> {
    let place = tally
        .windows(STAMP.len())
        .position(|window| window == STAMP)
        .context("the component tally has no stamp")?;
    let stamp = format!("{STAMP_OF_TRAPS}{number:05}");
    let mut bytes = tally.to_vec();
    let target = bytes.get_mut(place..place + stamp.len());
    target
        .filter(|_| stamp.len() == STAMP.len())
        .context("the stamp has another length")?
        .copy_from_slice(stamp.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_traps_differs_in_its_stamp_alone() {
        let tally = b"before STAMP-0000000000 after";
        assert_eq!(
            trapping(tally, 7).ok().as_deref(),
            Some(&b"before STAMP-trap-00007 after"[..])
        );
        assert!(trapping(tally, 100_000).is_err());
        assert!(trapping(b"no stamp", 1).is_err());
    }
}

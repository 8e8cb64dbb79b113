//! `cargo xtask test --clients --herd`: many clients of each SDK while three nodes restart one after another. Every client
//! must get every message of its rooms once and in order. `clients/conformance/README.md` describes it.

mod balancer;
mod histogram;
mod members;
mod nodes;
mod publisher;
mod report;
mod verdict;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::PATIENCE;
use super::driver::Driver;
use super::sdks::Sdk;
use crate::requirements::{self, REDIS_SERVER};
use crate::temp::TempDir;
use crate::workspace::Workspace;
use balancer::Balancer;
use nodes::{NODES, Nodes};
use publisher::Publisher;
use report::Report;
use verdict::Restart;

/// The clients of each SDK in a herd that is part of the tests.
pub(super) const SMALL: usize = 20;

/// The rooms. Each client is in one or two of them.
const ROOMS: usize = 12;

/// The clients of each SDK that connect at a time, before the restarts.
const OPENED_AT_ONCE: usize = 25;

/// Time between two messages to a room.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(500);

/// The messages to each room before the first restart, between two, and after the last one.
const MESSAGES_BETWEEN: u64 = 3;

/// Time between two looks at the reports of all clients.
const TICK: Duration = Duration::from_millis(500);

/// Restarts three nodes under `count` clients of each SDK, prints when they reconnected, and checks what they got.
///
/// # Errors
/// Fails if a client missed a message, got one twice or out of order, or reconnected too often, or if most reconnected at
/// the same time.
pub(super) fn run(
    workspace: &Workspace,
    program: &Path,
    sdks: &[&Sdk],
    count: usize,
) -> anyhow::Result<()> {
    if sdks.is_empty() {
        return Ok(());
    }
    requirements::ensure(&[REDIS_SERVER])?;
    allow_many_files();
    let begun = Instant::now();
    let folder = TempDir::new("herd").context("cannot create a temporary folder")?;
    let mut nodes = Nodes::start(program, folder.path())?;
    let seen = play(workspace, &mut nodes, sdks, count).with_context(|| nodes.story())?;
    print!("{}", histogram::table(&seen.reports, &seen.restarts));
    let faults = verdict::faults(&seen.reports, &seen.restarts, &seen.published);
    ensure!(
        faults.is_empty(),
        "{}\n    {}",
        faults.join("\n    "),
        nodes.story()
    );
    let clients: usize = seen.reports.iter().map(|(_, reports)| reports.len()).sum();
    let messages: u64 = seen.published.iter().sum();
    println!(
        "  {clients} clients got every message of their rooms once and in order: {messages} messages, {ROOMS} rooms, {NODES} restarts, {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// All that is needed for the verdict.
struct Seen {
    reports: Vec<(&'static str, Vec<Report>)>,
    restarts: Vec<Restart>,
    /// The number of the last message to each room.
    published: Vec<u64>,
}

/// Opens all clients, restarts all nodes, and ends the clients.
fn play(
    workspace: &Workspace,
    nodes: &mut Nodes,
    sdks: &[&Sdk],
    count: usize,
) -> anyhow::Result<Seen> {
    let balancer = Balancer::start(&nodes.addresses())?;
    let mut herd = Herd::open(workspace, sdks, count, &balancer)?;
    let publisher = Publisher::start(&balancer, ROOMS, MESSAGE_INTERVAL);
    let restarts = restart_all(nodes, &balancer, &mut herd, &publisher)?;
    let published = publisher.finish()?;
    if let Err(error) = herd.until(|report| report.has_all(&published)) {
        // The verdict names the messages.
        eprintln!("{error:#}");
    }
    let reports = herd.reports()?;
    herd.end()?;
    Ok(Seen {
        reports,
        restarts,
        published,
    })
}

/// Restarts each node after its clients of before have reconnected.
fn restart_all(
    nodes: &mut Nodes,
    balancer: &Balancer,
    herd: &mut Herd,
    publisher: &Publisher,
) -> anyhow::Result<Vec<Restart>> {
    let mut restarts: Vec<Restart> = Vec::new();
    for node in 0..NODES {
        publisher.wait(MESSAGES_BETWEEN)?;
        let clients = balancer.clients(node);
        restarts.push(Restart {
            began: now(),
            clients,
        });
        nodes.stop(node)?;
        balancer.set(node, None);
        balancer.set(node, Some(nodes.run(node)?));
        balancer.until_ready(node)?;
        let moved: usize = restarts.iter().map(|restart| restart.clients).sum();
        eprintln!("restarted node {}, which had {clients} clients", node + 1);
        herd.until_reconnected(moved)?;
    }
    publisher.wait(MESSAGES_BETWEEN)?;
    Ok(restarts)
}

/// The clients of all SDKs.
struct Herd {
    drivers: Vec<(&'static str, Driver)>,
}

impl Herd {
    /// Starts a process for each SDK, and waits until all clients have joined their rooms.
    fn open(
        workspace: &Workspace,
        sdks: &[&Sdk],
        count: usize,
        balancer: &Balancer,
    ) -> anyhow::Result<Self> {
        let mut drivers = Vec::new();
        for sdk in sdks {
            if let Some(command) = sdk.herd(workspace) {
                drivers.push((sdk.name, Driver::start(command)?));
            }
        }
        let mut herd = Self { drivers };
        let mut opened = 0;
        while opened < count {
            // Clients of all SDKs by turns, so that each node has some of each.
            let until = (opened + OPENED_AT_ONCE).min(count);
            for (name, driver) in &mut herd.drivers {
                driver.ask(members::open(name, opened..until, ROOMS, &balancer.url()))?;
            }
            opened = until;
            herd.until(Report::has_joined)
                .context("not every client has joined its rooms")?;
        }
        Ok(herd)
    }

    /// What each client has seen, by SDK.
    fn reports(&mut self) -> anyhow::Result<Vec<(&'static str, Vec<Report>)>> {
        let reports = self
            .drivers
            .iter_mut()
            .map(|(name, driver)| Ok((*name, report::ask(driver).context(*name)?)));
        reports.collect()
    }

    /// Waits until every client is as `is_so` says.
    fn until(&mut self, is_so: impl Fn(&Report) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let reports = self.reports()?;
            let mut all = reports.iter().flat_map(|(_, reports)| reports);
            let Some(other) = all.find(|report| !is_so(report)) else {
                return Ok(());
            };
            if Instant::now() >= end {
                bail!(
                    "{} has come only so far within {PATIENCE:?}: {other:?}",
                    other.user
                );
            }
            thread::sleep(TICK);
        }
    }

    /// Waits until as many reconnects have succeeded, and every client is in its rooms again.
    fn until_reconnected(&mut self, moved: usize) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let reports = self.reports()?;
            let all = || reports.iter().flat_map(|(_, reports)| reports);
            let came: usize = all().map(|report| report.reconnects().len()).sum();
            if came >= moved && all().all(Report::has_recovered) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{came} of {moved} clients have reconnected within {PATIENCE:?}"
            );
            thread::sleep(TICK);
        }
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.drivers
            .iter_mut()
            .try_for_each(|(name, driver)| driver.end().context(*name))
    }
}

/// Milliseconds since 1970, as the clients report them.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Each client takes two files of this process, and one of its own.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // If that fails, opening files will say so.
    let _ = setrlimit(Resource::Nofile, raised);
}

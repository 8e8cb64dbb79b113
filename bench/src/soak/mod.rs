//! The soak test: two nodes connected through Redis, thousands of clients, and the failures that a server meets in its
//! life.
//!
//! [`people`] are the well-behaved clients, whose messages the [`ledger`] accounts for; the [`crowd`] are the
//! misbehaving ones. After a quiet phase the [`storm`] begins: clients that move, plugin swaps, restarts of nodes and
//! of Redis, logs that nobody reads, floods. At the end the [`report`] shows whether any acked message was lost or
//! arrived twice, whether memory stayed flat, and how much longer the well-behaved clients waited than in the quiet
//! phase. Everything runs on this machine, and ends with this process.
//!
//! With `--rooms`, the clients are members of [`rooms`] with a history instead, and nodes are killed too. Then no member may
//! miss a message without learning it. With `--presence`, four nodes have clients that come and go, and know who is there:
//! [`presence`].

mod crowd;
mod faults;
mod ledger;
mod people;
mod presence;
mod processes;
mod report;
mod rooms;
mod storm;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::{
    ledger::Ledger,
    people::{Person, World},
    processes::{Node, Redis, stop_all},
    report::Report,
    storm::{PluginFile, Storm},
};

/// Shares of the total time: the quiet phase, and the time that the clients get to connect before it.
const QUIET_SHARE: f64 = 0.15;
const WARM_UP_SHARE: f64 = 0.1;

/// How long to wait after the last message before a missing message counts as lost. It is longer than a node holds a
/// message.
const LAST_WAIT: Duration = Duration::from_secs(15);

/// Pause between two connecting clients, so that connecting does not flood the nodes.
const CONNECT_PACE: Duration = Duration::from_millis(2);

/// Options of `signalbox-bench soak`.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// Duration of the test, in minutes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=24 * 60))]
    minutes: u64,
    /// Members of rooms with a history, instead of pairs
    #[arg(long)]
    rooms: bool,
    /// Members of rooms with presence, instead of pairs, until `--events` happened
    #[arg(long, conflicts_with = "rooms")]
    presence: bool,
    /// With --presence: the number of events
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    events: u64,
    /// With --presence: the number of members whose cost is measured first, while nobody comes or leaves
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=15_000))]
    idle: u32,
    /// Number of well-behaved clients
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(2..=20_000))]
    clients: u64,
    /// The server
    #[arg(long)]
    server: PathBuf,
    /// The chat plugin, as a component
    #[arg(long)]
    plugin: PathBuf,
    /// Redis
    #[arg(long, default_value = "redis-server")]
    redis_server: PathBuf,
    /// An empty folder for configuration, logs and the cache of compiled plugins
    #[arg(long)]
    folder: PathBuf,
}

/// Runs the soak test, prints the report, and returns whether it passed.
///
/// # Errors
/// Returns an error if the test could not run: a program did not start, or a node exited on its own.
pub async fn run(args: &SoakArgs) -> anyhow::Result<bool> {
    let folder = fs::canonicalize(&args.folder).context("the folder is not there")?;
    let plugin =
        fs::read(&args.plugin).with_context(|| format!("cannot read {}", args.plugin.display()))?;
    fs::write(folder.join("chat.wasm"), &plugin)?;
    let mut redis = Redis::start(&args.redis_server, &folder)?;
    fs::write(folder.join("soak.toml"), config(&redis.url()))?;
    let names: &[&str] = if args.presence {
        &["a", "b", "c", "d"]
    } else {
        &["a", "b"]
    };
    let server = fs::canonicalize(&args.server)
        .with_context(|| format!("{} is not there", args.server.display()))?;
    let mut nodes = Vec::new();
    for name in names {
        let mut node = Node::new(name, &server, &folder)?;
        node.start().await?;
        nodes.push(node);
    }
    let time = Duration::from_secs(args.minutes * 60);
    let plugin = PluginFile::new(plugin, &folder);
    if args.presence {
        let idle = args.idle as usize;
        return presence::run(args.events, idle, &mut nodes, &mut redis).await;
    }
    if args.rooms {
        return rooms::run(args.clients, time, &mut nodes, &mut redis, plugin).await;
    }
    let world = Arc::new(World {
        ledger: Ledger::new(usize::try_from(args.clients)? / 2 * 2)?,
        nodes: nodes.iter().map(|node| node.address).collect(),
        began: Instant::now(),
        is_quiet: true.into(),
        is_outage: true.into(),
        is_silent: false.into(),
        wave: watch::Sender::new(0),
    });
    let people = settle(&world, args.clients, time.mul_f64(WARM_UP_SHARE)).await;
    say(&world, "quiet");
    world.is_outage.store(false, Ordering::Relaxed);
    sleep(time.mul_f64(QUIET_SHARE)).await;
    world.is_quiet.store(false, Ordering::Relaxed);
    let mut storm = Storm::new(world.clone(), plugin);
    storm
        .rage(&mut nodes, &mut redis, world.began + time - LAST_WAIT)
        .await?;
    say(&world, "calm");
    world.is_silent.store(true, Ordering::Relaxed);
    sleep(LAST_WAIT).await;
    drop(people);
    let report = Report::of(&world, &storm, &nodes).await?;
    print!("{report}");
    let is_well = report.is_well();
    stop_all(&mut nodes).await?;
    Ok(is_well)
}

/// Starts the clients one after another, and returns once `time` has passed since the beginning.
async fn settle(world: &Arc<World>, clients: u64, time: Duration) -> JoinSet<()> {
    say(world, &format!("{clients} clients connect"));
    let mut people = JoinSet::new();
    for number in 0..world.ledger.senders() {
        people.spawn(Person::new(world.clone(), number).live());
        sleep(CONNECT_PACE).await;
    }
    sleep((world.began + time).saturating_duration_since(Instant::now())).await;
    people
}

/// The default configuration, apart from authentication, the broker and the plugin.
fn config(redis_url: &str) -> String {
    format!(
        "[auth]\nmode = \"none\"\n\
         [broker]\nkind = \"redis\"\n[redis]\nurl = \"{redis_url}\"\n\
         [[rooms]]\nmatch = \"room:*\"\nhistory = {{ size = 1000, time = \"10m\" }}\n\
         [[rooms]]\nmatch = \"seen:*\"\npresence = true\n[presence]\ngrace = \"{}s\"\n\
         [[plugins]]\nname = \"chat\"\npath = \"chat.wasm\"\nevents = [\"chat_message\"]\n",
        presence::GRACE.as_secs()
    )
}

/// Prints an event to stderr, with the time since the beginning.
fn say(world: &World, what: &str) {
    let seconds = world.began.elapsed().as_secs();
    eprintln!("{:>3}:{:02} {what}", seconds / 60, seconds % 60);
}

//! `cargo xtask soak`: builds what the soak test needs, and runs it.

use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Args;

use crate::plugins;
use crate::requirements::{self, REDIS_SERVER, WASM_TARGET};
use crate::steps::run_program;
use crate::temp::TempDir;
use crate::workspace::Workspace;

/// Options of `cargo xtask soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// Duration of the test, in minutes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=24 * 60))]
    minutes: u32,
    /// Number of well-behaved clients; misbehaving ones are added
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    clients: u32,
    /// Members of rooms with a history instead of pairs; nodes are killed too
    #[arg(long)]
    rooms: bool,
    /// Members of rooms with presence, who come and go until `--events` happened
    #[arg(long, conflicts_with = "rooms")]
    presence: bool,
    /// With --presence: the number of events
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    events: u32,
    /// With --presence: the number of members whose cost is measured first, while nobody comes or leaves
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=15_000))]
    idle: u32,
    /// Use a debug build, which is ready sooner: to see that everything works
    #[arg(long)]
    debug: bool,
}

/// Builds and runs the soak test, and fails if it fails.
pub(crate) fn run(workspace: &Workspace, args: &SoakArgs) -> anyhow::Result<ExitCode> {
    requirements::ensure(&[WASM_TARGET, REDIS_SERVER])?;
    plugins::build_shipped(workspace)?;
    let mut build = workspace.cargo();
    build.args([
        "build",
        "-p",
        "signalbox",
        "-p",
        "signalbox-bench",
        "--bins",
    ]);
    build.args((!args.debug).then_some("--release"));
    run_program(&mut build)?;
    let profile = if args.debug { "debug" } else { "release" };
    let folder = TempDir::new("soak").context("cannot create a temporary folder")?;
    let mut soak = Command::new(workspace.program(profile, "signalbox-bench"));
    soak.arg("soak");
    soak.arg("--server")
        .arg(workspace.program(profile, "signalbox"));
    soak.arg("--plugin")
        .arg(workspace.plugins_dir().join("chat.wasm"));
    soak.arg("--folder").arg(folder.path());
    for (option, value) in [
        ("--minutes", args.minutes),
        ("--clients", args.clients),
        ("--events", args.events),
        ("--idle", args.idle),
    ] {
        soak.args([option, &value.to_string()]);
    }
    soak.args(args.rooms.then_some("--rooms"));
    soak.args(args.presence.then_some("--presence"));
    let status = soak.status().context("the soak does not start")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

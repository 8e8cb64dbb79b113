//! The project's own commands, run as `cargo xtask <command>`.
//!
//! Each command first makes sure that its requirements are met; if they are not, it says in one line what to do.
//! Nothing here is part of the server.

mod bench;
mod builds;
mod clients;
mod cluster;
mod http;
mod languages;
mod plugins;
mod programs;
mod python;
mod requirements;
mod run;
mod smoke;
mod soak;
mod steps;
mod temp;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the plugins that ship with the server into target/plugins
    Plugins(plugins::PluginsArgs),
    /// Build the plugins and the server, and run it with platform.toml
    Run(run::RunArgs),
    /// Run several nodes as one cluster, through a Redis that is started for them
    Cluster(cluster::ClusterArgs),
    /// Build everything that the tests load, and run all tests
    Test(test::TestArgs),
    /// Spin on each core until standard input ends
    #[command(hide = true)]
    Spin,
    /// Write the API references of the client SDKs into target/api-docs
    Docs,
    /// Build an optimised server, and send a message through it
    Smoke,
    /// Measure the server against the relay that is the baseline
    Bench(bench::BenchArgs),
    /// Run two nodes and thousands of clients through all kinds of failures, and account for every message
    Soak(soak::SoakArgs),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Plugins(args) => plugins::run(&workspace, &args),
        Command::Run(args) => run::run(&workspace, &args),
        Command::Cluster(args) => cluster::run(&workspace, &args),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Spin => test::spin(),
        Command::Docs => clients::docs::run(&workspace),
        Command::Smoke => smoke::run(&workspace),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Soak(args) => soak::run(&workspace, &args),
    }
}

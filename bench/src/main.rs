//! `signalbox-bench`: `relay` serves the baseline, `load` measures a server, `recovery` and `presence` let much happen to a
//! room at once, `soak` stress-tests two nodes.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use signalbox_bench::bursts::{BurstReport, PresenceArgs, RecoveryArgs};
use signalbox_bench::load::{self, LoadArgs};
use signalbox_bench::soak::{self, SoakArgs};
use signalbox_bench::{raise_open_files_limit, relay};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

#[derive(Parser)]
#[command(name = "signalbox-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a relay that only copies frames between sockets: the least that any message server must do
    Relay {
        /// Address to listen on; port 0 lets the system choose, the chosen address is printed as `listening on ADDR`
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Put load on a server and measure delivery, order and latency
    Load(Box<LoadArgs>),
    /// Let all members of a room lose their connections and recover the missed messages; prints the cost as JSON
    Recovery(RecoveryArgs),
    /// Let all members of a room with presence join at once; prints the cost as JSON
    Presence(PresenceArgs),
    /// Run two nodes and thousands of clients through all kinds of failures, and account for every message
    Soak(SoakArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command, and returns whether all is well.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Relay { listen } => {
            raise_open_files_limit(None);
            Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(serve_relay(listen))
        }
        Command::Load(args) => run_load(*args),
        Command::Recovery(args) => run_burst(args.run()),
        Command::Presence(args) => run_burst(args.run()),
        Command::Soak(args) => {
            raise_open_files_limit(None);
            load_runtime(1)?.block_on(soak::run(&args))
        }
    }
}

async fn serve_relay(listen: SocketAddr) -> anyhow::Result<bool> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}; choose a free port with --listen"))?;
    println!("listening on {}", listener.local_addr()?);
    relay::serve(listener).await?;
    Ok(true)
}

fn run_load(args: LoadArgs) -> anyhow::Result<bool> {
    let (json, threads) = (args.json, args.threads);
    let plan = args.into_plan()?;
    raise_open_files_limit(Some(plan.connections()));
    let report = load_runtime(threads)?.block_on(load::run(&plan))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.is_clean())
}

fn run_burst(burst: impl Future<Output = anyhow::Result<BurstReport>>) -> anyhow::Result<bool> {
    raise_open_files_limit(None);
    let report = load_runtime(1)?.block_on(burst)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(true)
}

/// A single thread is the default: it needs no locks between threads, and leaves the other cores to the server.
fn load_runtime(threads: usize) -> std::io::Result<Runtime> {
    if threads <= 1 {
        Builder::new_current_thread().enable_all().build()
    } else {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).enable_all().build()
    }
}

//! `signalbox-bench`: `relay` serves the baseline, `load` measures a server, `recovery` and `presence` let much happen to a
//! room at once, `soak` stress-tests two nodes.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use signalbox_bench::bursts::{BurstReport, PresenceArgs, RecoveryArgs};
use signalbox_bench::load::{self, LoadArgs};
use signalbox_bench::relay;
use signalbox_bench::soak::{self, SoakArgs};
use tokio::net::TcpListener;

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
    let outcome = match Cli::parse().command {
        Command::Relay { listen } => run_relay(listen),
        Command::Load(args) => run_load(*args),
        Command::Recovery(args) => run_burst(args.run()),
        Command::Presence(args) => run_burst(args.run()),
        Command::Soak(args) => run_soak(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run_relay(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    load::raise_open_files_limit(None);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen}; choose a free port with --listen")
        })?;
        println!("listening on {}", listener.local_addr()?);
        relay::serve(listener).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn run_load(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let threads = args.threads;
    let plan = args.into_plan()?;
    load::raise_open_files_limit(Some(plan.connections()));
    let report = load_runtime(threads)?.block_on(load::run(&plan))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_burst(burst: impl Future<Output = anyhow::Result<BurstReport>>) -> anyhow::Result<ExitCode> {
    load::raise_open_files_limit(None);
    let report = load_runtime(1)?.block_on(burst)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(ExitCode::SUCCESS)
}

fn run_soak(args: &SoakArgs) -> anyhow::Result<ExitCode> {
    load::raise_open_files_limit(None);
    let passed = load_runtime(1)?.block_on(soak::run(args))?;
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A single thread is the default: it needs no locks between threads, and leaves the other cores to the server.
fn load_runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    if threads <= 1 {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    } else {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
    }
}

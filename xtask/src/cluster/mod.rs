//! `cargo xtask cluster`: runs several nodes of the server on this machine, which form one cluster through Redis.

pub(crate) mod child;
mod node;
mod redis;
mod watch;

use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::plugins;
use crate::requirements::{self, REDIS_SERVER, WASM_TARGET};
use crate::steps::run_program;
use crate::workspace::Workspace;
use child::{Child, Event};
use node::Node;
pub(crate) use node::is_ready;
pub(crate) use redis::Redis;
use watch::Watch;

/// Time limit for Redis to answer, and for nodes to become ready: their first start compiles the plugins.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Time limit for nodes to drain, which `server.drain_timeout` bounds, and to end.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// Options of `cargo xtask cluster`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// How many nodes to start; they are named a, b, c and so on
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=26))]
    nodes: u8,
    /// The port of the first node; the others get the ports after it
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// An existing Redis, instead of one that is started for this
    #[arg(long)]
    redis_url: Option<String>,
}

impl ClusterArgs {
    fn nodes(&self) -> anyhow::Result<Vec<Node>> {
        (0..self.nodes)
            .map(|index| {
                let port = self.port.checked_add(u16::from(index)).with_context(|| {
                    format!("there are no {} ports from {} on", self.nodes, self.port)
                })?;
                Ok(Node::new(char::from(b'a' + index), port))
            })
            .collect()
    }
}

/// Builds and starts everything, and stays until Ctrl-C, which ends everything, or until something ends by itself.
pub(crate) fn run(workspace: &Workspace, args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let nodes = args.nodes()?;
    requirements::ensure(&[WASM_TARGET])?;
    if args.redis_url.is_none() {
        requirements::ensure(&[REDIS_SERVER])?;
    }
    plugins::build_shipped(workspace)?;
    let words = ["build", "-p", "signalbox", "--bin", "signalbox"];
    run_program(workspace.cargo().args(words))?;

    let (events, received) = channel();
    let interrupts = events.clone();
    // This fails if another handler has taken the signals; without them nothing would be ended.
    ctrlc::set_handler(move || drop(interrupts.send(Event::Interrupted)))
        .context("cannot take notice of Ctrl-C")?;
    let mut watch = Watch::new(received);
    let mut running = Vec::new();
    let (redis_url, _folder) = match &args.redis_url {
        Some(url) => (url.clone(), None),
        None => {
            let redis = Redis::start(&events)?;
            running.push(redis.child);
            (redis.url, Some(redis.folder))
        }
    };
    let first_node = running.len();
    let program = workspace.program("debug", "signalbox");
    let start = |node: &Node| {
        let command = node.command(workspace, &program, &redis_url);
        Child::start(node.name(), command, &events)
    };
    let outcome = serve(&mut watch, &mut running, &nodes, start);
    eprintln!("ending; Ctrl-C ends everything at once");
    // Redis last, because nodes remove their entries from it.
    let (redis, nodes) = running.split_at_mut(first_node);
    watch.stop(nodes, STOP_TIME_MAX);
    watch.stop(redis, STOP_TIME_MAX);
    outcome?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the nodes and stays until Ctrl-C. It is an error if something ends by itself.
fn serve(
    watch: &mut Watch,
    running: &mut Vec<Child>,
    nodes: &[Node],
    start: impl Fn(&Node) -> anyhow::Result<Child>,
) -> anyhow::Result<()> {
    for node in nodes {
        running.push(start(node)?);
    }
    let are_ready = watch.wait(running, START_TIME_MAX, || nodes.iter().all(Node::is_ready));
    if are_ready.context("the nodes did not start")? {
        eprintln!("{}", node::instructions(nodes));
        watch.wait(running, Duration::MAX, || false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ClusterArgs,
    }

    fn args(words: &[&str]) -> Result<ClusterArgs, clap::Error> {
        let cli = Cli::try_parse_from(std::iter::once(&"cluster").chain(words))?;
        Ok(cli.args)
    }

    fn urls(words: &[&str]) -> Vec<String> {
        let nodes = args(words).expect("legal").nodes().expect("enough ports");
        nodes.iter().map(Node::url).collect()
    }

    #[test]
    fn there_are_two_nodes_unless_more_are_asked_for() {
        assert_eq!(
            urls(&[]),
            ["ws://127.0.0.1:8080/ws", "ws://127.0.0.1:8081/ws"]
        );
        let three = urls(&["--nodes", "3", "--port", "9000"]);
        assert_eq!(three[2], "ws://127.0.0.1:9002/ws");
    }

    #[test]
    fn impossible_arguments_are_refused() {
        for words in [["--nodes", "0"], ["--nodes", "27"], ["--port", "0"]] {
            assert!(args(&words).is_err(), "{words:?}");
        }
        let too_high = args(&["--port", "65535"]).expect("legal by itself");
        let error = too_high.nodes().expect_err("there is no port 65536");
        assert!(error.to_string().contains("65535"), "{error}");
    }
}

//! The route table: it becomes correct in the end, whatever happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    redis::{Server, until},
    redis_nodes::{Nodes, Outcome, Peer, Talk, config},
};

/// How long connections open and close; `TEST_RACE_SECONDS` extends it.
fn race_time() -> Duration {
    let seconds = std::env::var("TEST_RACE_SECONDS");
    let seconds = seconds.ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

/// The route table: the nodes of each user, by their configured names.
async fn routes(server: &Server) -> BTreeMap<String, BTreeSet<String>> {
    let mut routes = BTreeMap::new();
    let keys: Vec<String> = server.command(&["KEYS", "user_servers:*"]).await;
    for key in keys {
        let servers: Vec<String> = server.command(&["SMEMBERS", &key]).await;
        let nodes = servers
            .iter()
            .map(|id| id.rsplit_once('-').expect("a nonce").0.to_owned());
        let user = key.trim_start_matches("user_servers:").to_owned();
        routes.insert(user, nodes.collect());
    }
    routes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_connections_came_and_went_as_fast_as_they_can_the_routes_are_the_truth() {
    let server = Server::start().await;
    let cluster = Nodes::start(3, &server.url(), "").await;
    let end = Instant::now() + race_time();
    // Several tasks for each of a few users, so that a user's first connect and last disconnect race constantly.
    let flickers = (0..24).map(async |task: usize| {
        let user = format!("u{}", task % 5);
        let mut round = task;
        loop {
            let node = round % cluster.nodes.len();
            let peer = Peer::connect(&cluster.nodes[node], &user).await;
            if Instant::now() >= end {
                return (
                    user,
                    format!("n{node}"),
                    round.is_multiple_of(2).then_some(peer),
                );
            }
            if round.is_multiple_of(3) {
                peer.close().await;
            } else {
                drop(peer);
            }
            round += 1;
        }
    });
    let left = join_all(flickers).await;
    let mut truth: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut stay = Vec::new();
    for (user, node, peer) in left {
        if let Some(peer) = peer {
            truth.entry(user).or_default().insert(node);
            stay.push(peer);
        }
    }
    until("the route table is correct", async || {
        (routes(&server).await == truth).then_some(())
    })
    .await;
    for peer in stay {
        peer.close().await;
    }
    until("the route table is empty", async || {
        routes(&server).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_is_offline_within_a_lease_and_its_routes_are_taken_out() {
    let server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut doomed = Process::start(dir.path(), &config("doomed", &server.url(), ""));
    until_dead_or_ready(&mut doomed).await;
    let _bob = doomed.connect("bob").await;
    until("bob is reached", async || {
        (ann.ask("bob", 0).await == Outcome::Delivered).then_some(())
    })
    .await;
    doomed.kill();
    // Until then the sender gets a retryable error: nothing was delivered.
    until(
        "the sender is told that the user is offline",
        async || match ann.ask("bob", 1).await {
            Outcome::Offline => Some(()),
            _ => None,
        },
    )
    .await;
    until("the dead server is removed from the route", async || {
        (!routes(&server).await.contains_key("bob")).then_some(())
    })
    .await;
    let leases: Vec<String> = server.command(&["KEYS", "server_alive:doomed-*"]).await;
    assert!(leases.is_empty(), "the lease ended first: {leases:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_that_are_lost_or_wrong_are_put_right() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    // A stale route: it is removed when a message finds nobody.
    let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
    server
        .command::<()>(&["SADD", "user_servers:nobody", &servers[0]])
        .await;
    ann.ask("nobody", 1).await;
    until("the wrong route is removed", async || {
        (!routes(&server).await.contains_key("nobody")).then_some(())
    })
    .await;
    // Lost routes: they are restored with the next lease.
    server.command::<()>(&["FLUSHALL"]).await;
    until("the routes are back", async || {
        let leases: Vec<String> = server.command(&["KEYS", "server_alive:*"]).await;
        (leases.len() == 2 && routes(&server).await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(ann.ask("bob", 2).await, Outcome::Delivered);
    assert_eq!(bob.delivery().await["payload"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_routes_survive_an_emptied_redis() {
    let mut server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let names: Vec<String> = (0..500).map(|index| format!("user{index}")).collect();
    let _peers = cluster.peers(&names).await;
    assert_eq!(routes(&server).await.len(), names.len());
    server.restart_empty().await;
    until("all routes are back", async || {
        (routes(&server).await.len() == names.len()).then_some(())
    })
    .await;
    cluster.until_ready().await;
    let mut talk = Talk::start(&cluster, 5).await;
    talk.rounds_delivered(20).await;
    talk.finish(0).await;
}

/// A server in a separate process.
struct Process {
    child: std::process::Child,
    address: std::net::SocketAddr,
}

impl Process {
    fn start(dir: &Path, config: &str) -> Self {
        // Free a moment ago; the process reports it if another one took the port first.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let listen = format!("[server]\nlisten = \"{address}\"");
        let file = dir.join("platform.toml");
        std::fs::write(&file, config.replacen("[server]", &listen, 1)).expect("it is written");
        let child = Command::new(env!("CARGO_BIN_EXE_signalbox"))
            .args(["run", "--config"])
            .arg(&file)
            .current_dir(dir)
            .stdin(Stdio::null())
            .spawn()
            .expect("the server binary");
        Self { child, address }
    }

    /// A connection that stays open until this value is dropped.
    async fn connect(&self, user: &str) -> impl Sized + use<> {
        let url = format!("ws://{}/ws?userId={user}", self.address);
        let connected = tokio_tungstenite::connect_async(url).await;
        connected.expect("the process accepts clients")
    }

    /// Kills it, as in a crash.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn until_dead_or_ready(process: &mut Process) {
    until("the process is ready", async || {
        let ended = process.child.try_wait().expect("it can be asked");
        assert!(ended.is_none(), "the server ended: {ended:?}");
        let answer = crate::harness::get(process.address, "/ready").await?;
        (answer.0 == 200).then_some(())
    })
    .await;
}

//! Redis credentials change while nodes run: nothing is lost, and nobody notices.

use crate::{
    harness::with_plugin_cache,
    redis::{Cluster, Options, Server, until},
    redis_nodes::{Nodes, Outcome, Talk, config},
};

/// A login to Redis.
struct Login(&'static str, &'static str);

const OLD: Login = Login("old", "one-and-one");
const NEW: Login = Login("new", "two-and-two");

impl Login {
    /// The rule for `ACL SETUSER` that allows this login.
    fn rule(&self) -> [String; 6] {
        let Self(user, password) = self;
        let password = format!(">{password}");
        [user, "on", &password, "~*", "&*", "+@all"].map(str::to_owned)
    }

    async fn is_made_at(&self, server: &Server) {
        let rule = self.rule();
        let words = ["ACL", "SETUSER"].into_iter();
        let words: Vec<&str> = words.chain(rule.iter().map(String::as_str)).collect();
        server.command::<()>(&words).await;
    }

    /// Addresses with this login.
    fn at(&self, urls: &str) -> String {
        let Self(user, password) = self;
        urls.replace("redis://", &format!("redis://{user}:{password}@"))
    }
}

/// A server that accepts the old login. The tests themselves connect without one.
async fn server() -> Server {
    let server = Server::start_with(Options::default()).await;
    OLD.is_made_at(&server).await;
    server
}

/// Makes every node reload its addresses.
fn configure(cluster: &Nodes, urls: &str) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let text = with_plugin_cache(&config(&format!("n{index}"), urls, ""));
        node.replace("platform.toml", text.as_bytes());
    }
}

/// The number of connections of `user`.
async fn connections(server: &Server, user: &str) -> usize {
    let list: String = server.command(&["CLIENT", "LIST"]).await;
    let user = format!(" user={user} ");
    list.lines().filter(|line| line.contains(&user)).count()
}

/// Waits until `user` has no connections to `server`.
async fn until_gone(server: &Server, user: &str) {
    until("no connection has the old login", async || {
        (connections(server, user).await == 0).then_some(())
    })
    .await;
}

async fn rebuilds(cluster: &Nodes) -> f64 {
    let mut sum = 0.0;
    for node in &cluster.nodes {
        let count = node.metric("wss_redis_subscriber_rebuilds_total ").await;
        sum += count.unwrap_or_default();
    }
    sum
}

fn assert_all_delivered(outcomes: &[Outcome]) {
    for outcome in outcomes {
        assert_eq!(*outcome, Outcome::Delivered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_login_is_taken_over_by_connections_that_exist_and_nothing_is_lost() {
    let server = server().await;
    let cluster = Nodes::start(2, &OLD.at(&server.url()), "").await;
    let mut talk = Talk::start(&cluster, 5).await;
    talk.rounds_delivered(5).await;
    let before = connections(&server, OLD.0).await;
    assert!(before >= 4, "{before}");

    NEW.is_made_at(&server).await;
    configure(&cluster, &NEW.at(&server.url()));
    let outcomes = talk.rounds_until(until_gone(&server, OLD.0)).await;
    assert_all_delivered(&outcomes);
    assert_eq!(
        connections(&server, NEW.0).await,
        before,
        "the same connections"
    );
    // Redis disconnects every client that still uses the old login.
    server.command::<u64>(&["ACL", "DELUSER", OLD.0]).await;
    talk.rounds_delivered(20).await;
    assert_eq!(rebuilds(&cluster).await, 0.0);
    talk.finish(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_made_later_use_the_changed_login() {
    let server = server().await;
    let cluster = Nodes::start(2, &OLD.at(&server.url()), "").await;
    let mut talk = Talk::start(&cluster, 2).await;
    NEW.is_made_at(&server).await;
    configure(&cluster, &NEW.at(&server.url()));
    talk.rounds_until(until_gone(&server, OLD.0)).await;
    server.command::<u64>(&["ACL", "DELUSER", OLD.0]).await;
    server
        .command::<u64>(&["CLIENT", "KILL", "USER", NEW.0])
        .await;
    cluster.nodes[0]
        .until_metric("wss_redis_subscriber_rebuilds_total ", |count| count >= 1.0)
        .await;
    talk.rounds_until(cluster.until_ready()).await;
    let since = talk.next_round();
    talk.rounds_delivered(10).await;
    talk.finish(since).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_redis_does_not_know_yet_is_tried_until_it_does_and_the_old_one_serves_meanwhile()
 {
    let server = server().await;
    let cluster = Nodes::start(2, &OLD.at(&server.url()), "").await;
    let mut talk = Talk::start(&cluster, 2).await;
    talk.rounds_delivered(2).await;
    configure(&cluster, &NEW.at(&server.url()));
    // Waits until the nodes have tried the new login without success.
    let tried = until("a login is refused", async || {
        let log: Vec<redis::Value> = server.command(&["ACL", "LOG"]).await;
        (!log.is_empty()).then_some(())
    });
    assert_all_delivered(&talk.rounds_until(tried).await);
    NEW.is_made_at(&server).await;
    let outcomes = talk.rounds_until(until_gone(&server, OLD.0)).await;
    assert_all_delivered(&outcomes);
    assert_eq!(rebuilds(&cluster).await, 0.0);
    talk.finish(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_login_to_a_cluster_is_taken_over_and_nothing_is_lost() {
    let redis_cluster = Cluster::start().await;
    let nodes: Vec<&Server> = (0..6).map(|index| redis_cluster.node(index)).collect();
    for node in &nodes {
        OLD.is_made_at(node).await;
    }
    let cluster = Nodes::start(2, &OLD.at(&redis_cluster.urls()), "").await;
    let mut talk = Talk::start(&cluster, 5).await;
    talk.rounds_delivered(5).await;
    for node in &nodes {
        NEW.is_made_at(node).await;
    }
    configure(&cluster, &NEW.at(&redis_cluster.urls()));
    let gone = async {
        for node in &nodes {
            until_gone(node, OLD.0).await;
        }
    };
    assert_all_delivered(&talk.rounds_until(gone).await);
    for node in &nodes {
        node.command::<u64>(&["ACL", "DELUSER", OLD.0]).await;
    }
    talk.rounds_delivered(20).await;
    assert_eq!(rebuilds(&cluster).await, 0.0);
    talk.finish(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_of_redis_needs_a_restart_and_its_login_is_not_used_before() {
    let server = server().await;
    let cluster = Nodes::start(1, &OLD.at(&server.url()), "").await;
    let before = connections(&server, OLD.0).await;
    NEW.is_made_at(&server).await;
    let elsewhere = NEW.at("redis://127.0.0.1:1");
    let text = with_plugin_cache(&config("n0", &elsewhere, ""));
    let text = text.replace("messages_per_second = 0", "rooms_per_connection_max = 3");
    cluster.nodes[0].replace("platform.toml", text.as_bytes());
    // The settings that can change at run time have been applied.
    until("the other keys take effect", async || {
        let mut probe = cluster.nodes[0]
            .connect("probe", Some("signalbox.v1"))
            .await
            .ok()?;
        (probe.json().await["payload"]["limits"]["roomsMax"] == 3).then_some(())
    })
    .await;
    assert_eq!(connections(&server, OLD.0).await, before);
    assert_eq!(connections(&server, NEW.0).await, 0);
}

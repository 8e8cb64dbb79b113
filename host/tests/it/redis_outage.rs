//! Redis fails and comes back: nodes report it, senders get an error, nobody is disconnected, and afterwards nothing is
//! lost.

use crate::{
    redis::{Cluster, Sentinels, Server},
    redis_nodes::{Nodes, Outcome, PROMPT, Talk, until_unready},
};

/// Messages that each client of a pair sends after recovery, all of which must be delivered.
const ROUNDS_AFTER: usize = 50;

/// Checks that every message was either delivered to the other node or rejected as retryable: no sender may hear that a
/// connected user is offline.
fn assert_honest(outcomes: &[Outcome]) {
    let unavailable = Outcome::Retryable("unavailable".to_owned());
    for outcome in outcomes {
        assert!(
            [&Outcome::Delivered, &unavailable].contains(&outcome),
            "{outcome:?}"
        );
    }
}

/// After an outage, everything that is sent is delivered, once and in order.
async fn assert_well(cluster: &Nodes, mut talk: Talk) {
    cluster.until_ready().await;
    let since = talk.next_round();
    talk.rounds_delivered(ROUNDS_AFTER).await;
    talk.finish(since).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_comes_back_empty() {
    let mut server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), PROMPT).await;
    let mut talk = Talk::start(&cluster, 10).await;
    talk.rounds_delivered(10).await;
    server.kill9();
    let unready = async { drop(cluster.until_unready().await) };
    let outcomes = talk.rounds_until(unready).await;
    assert_honest(&outcomes);
    assert_honest(&talk.round().await);
    server.restart_empty().await;
    let outcomes = talk.rounds_until(cluster.until_ready()).await;
    assert_honest(&outcomes);
    assert_well(&cluster, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_halted_and_resumes() {
    let mut server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), PROMPT).await;
    let mut talk = Talk::start(&cluster, 10).await;
    talk.rounds_delivered(10).await;
    server.stop();
    // Wait until a node has dropped its connection, not only until it has noticed the outage.
    let given_up = async {
        drop(cluster.until_unready().await);
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    };
    let outcomes = talk.rounds_until(given_up).await;
    assert_honest(&outcomes);
    let unavailable = Outcome::Retryable("unavailable".to_owned());
    assert!(
        talk.round()
            .await
            .iter()
            .all(|outcome| *outcome == unavailable)
    );
    server.cont();
    let outcomes = talk.rounds_until(cluster.until_ready()).await;
    assert_honest(&outcomes);
    assert_well(&cluster, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_to_redis_are_cut() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), PROMPT).await;
    let mut talk = Talk::start(&cluster, 10).await;
    talk.rounds_delivered(10).await;
    for kind in ["normal", "pubsub", "normal"] {
        server
            .command::<u64>(&["CLIENT", "KILL", "TYPE", kind])
            .await;
        let outcomes = talk.rounds_until(cluster.until_ready()).await;
        assert_honest(&outcomes);
    }
    cluster.nodes[0]
        .until_metric("wss_redis_subscriber_rebuilds_total ", |count| count >= 1.0)
        .await;
    assert_well(&cluster, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_fail_over_from_a_dead_master() {
    let mut sentinels = Sentinels::start().await;
    let redis = format!("{PROMPT}sentinel_master = \"{}\"", sentinels.master_name());
    let cluster = Nodes::start(2, &sentinels.urls(), &redis).await;
    let mut talk = Talk::start(&cluster, 10).await;
    talk.rounds_delivered(10).await;
    // The master is killed and replaced while all pairs talk: the nodes are unready, then ready with the new master.
    let unready = async { drop(cluster.until_unready().await) };
    let failed_over = sentinels.kill_master(unready);
    let outcomes = talk.rounds_until(failed_over).await;
    assert_honest(&outcomes);
    let outcomes = talk.rounds_until(cluster.until_ready()).await;
    assert_honest(&outcomes);
    assert_well(&cluster, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_fail_over_while_the_old_master_lives() {
    let sentinels = Sentinels::start().await;
    // If the sentinels watch only one master, its name is optional.
    let cluster = Nodes::start(2, &sentinels.urls(), PROMPT).await;
    let mut talk = Talk::start(&cluster, 10).await;
    talk.rounds_delivered(10).await;
    let outcomes = talk.rounds_until(sentinels.fail_over()).await;
    assert_honest(&outcomes);
    let port = sentinels.master().await.port();
    let moved = async {
        // A node may be ready with the old master until that is demoted.
        sentinels.until_replicated().await;
        let command = ["CLIENT", "LIST", "TYPE", "pubsub"];
        crate::redis::until("all nodes subscribe at the new master", async || {
            let master = sentinels.master().await;
            assert_eq!(master.port(), port);
            let clients: String = master.command(&command).await;
            (clients.matches(" sub=4 ").count() == 2).then_some(())
        })
        .await;
        cluster.until_ready().await;
    };
    let outcomes = talk.rounds_until(moved).await;
    assert_honest(&outcomes);
    assert_well(&cluster, talk).await;
}

/// What happens to a master of a cluster.
#[derive(Clone, Copy, PartialEq)]
enum MasterFault {
    Dies,
    IsHalted,
}

async fn a_replica_takes_over(fault: MasterFault) {
    let mut redis_cluster = Cluster::start().await;
    let cluster = Nodes::start(2, &redis_cluster.urls(), PROMPT).await;
    let mut talk = Talk::start(&cluster, 10).await;
    talk.rounds_delivered(10).await;
    let slot = redis_cluster
        .slot_of(&channel_of(&redis_cluster, "n0").await)
        .await;
    let master = redis_cluster.master_of(slot).await;
    match fault {
        MasterFault::Dies => redis_cluster.kill(master),
        MasterFault::IsHalted => redis_cluster.stop(master),
    }
    // The other node's channel is unaffected.
    let unready = async { drop(until_unready(&cluster.nodes[0]).await) };
    assert_honest(&talk.rounds_until(unready).await);
    redis_cluster.allow_failover().await;
    assert_honest(&talk.rounds_until(redis_cluster.until_settled()).await);
    assert_honest(&talk.rounds_until(cluster.until_ready()).await);
    if fault == MasterFault::IsHalted {
        redis_cluster.cont(master);
        assert_honest(&talk.rounds_until(redis_cluster.until_settled()).await);
    }
    redis_cluster.forbid_failover().await;
    assert_well(&cluster, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_dies_and_its_replica_takes_over() {
    a_replica_takes_over(MasterFault::Dies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_is_halted_and_its_replica_takes_over() {
    a_replica_takes_over(MasterFault::IsHalted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_a_servers_channel_moves_while_everybody_talks() {
    let redis_cluster = Cluster::start().await;
    // Not `PROMPT`: this is no outage. After a move, Redis writes the slots to its disk, and answers nothing until they are there.
    let cluster = Nodes::start(2, &redis_cluster.urls(), "").await;
    let mut talk = Talk::start(&cluster, 10).await;
    talk.rounds_delivered(10).await;
    let channel = channel_of(&redis_cluster, "n0").await;
    let slot = redis_cluster.slot_of(&channel).await;
    let from = redis_cluster.master_of(slot).await;
    let to = (from + 1) % 3;
    assert_honest(&talk.rounds_until(redis_cluster.move_slot(slot, to)).await);
    let moved = crate::redis::until("the node subscribes at the slot's new master", async || {
        let node = redis_cluster.node(to);
        let subscribers: Vec<redis::Value> =
            node.command(&["PUBSUB", "SHARDNUMSUB", &channel]).await;
        (subscribers.last() == Some(&redis::Value::Int(1))).then_some(())
    });
    assert_honest(&talk.rounds_until(moved).await);
    // Routes in a slot move with it.
    let slot = redis_cluster.slot_of("user_servers:a0").await;
    let to = (redis_cluster.master_of(slot).await + 1) % 3;
    assert_honest(&talk.rounds_until(redis_cluster.move_slot(slot, to)).await);
    assert_well(&cluster, talk).await;
}

/// The channel of the node with the configured name `node`, found through the route of one of its users.
async fn channel_of(cluster: &Cluster, node: &str) -> String {
    let mut connection = cluster.connect().await;
    let servers: Vec<String> = redis::cmd("SMEMBERS")
        .arg("user_servers:a0")
        .query_async(&mut connection)
        .await
        .expect("the cluster answers");
    let id = servers
        .iter()
        .find(|id| id.starts_with(&format!("{node}-")));
    format!(
        "server:{}",
        id.expect("the first user is on the first node")
    )
}

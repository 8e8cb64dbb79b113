//! Redis goes and comes back: nodes say so, senders are told, nobody is disconnected, and afterwards nothing is lost.

use crate::{
    redis::{Cluster, Sentinels, Server},
    redis_fleet::{Fleet, Outcome, Talk, until_unready},
};

/// Messages that must be delivered once everything is well again, by each of a pair.
const ROUNDS_AFTER: usize = 50;

/// Every sender hears whether its message was handed to the other's node or is to be sent again: nobody is called
/// offline who is not.
fn assert_honest(outcomes: &[Outcome]) {
    let unavailable = Outcome::Retryable("unavailable".to_owned());
    for outcome in outcomes {
        assert!(
            [&Outcome::Delivered, &unavailable].contains(&outcome),
            "{outcome:?}"
        );
    }
}

/// After an outage: everything that is sent from now on is delivered, once and in order.
async fn assert_well(fleet: &Fleet, mut talk: Talk) {
    fleet.until_ready().await;
    let since = talk.next_round();
    talk.rounds_delivered(ROUNDS_AFTER).await;
    talk.finish(since).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_comes_back_empty() {
    let mut server = Server::start().await;
    let fleet = Fleet::start(2, &server.url(), "").await;
    let mut talk = Talk::start(&fleet, 10).await;
    talk.rounds_delivered(10).await;
    server.kill9();
    let unready = async { drop(fleet.until_unready().await) };
    let outcomes = talk.rounds_until(unready).await;
    assert_honest(&outcomes);
    assert_honest(&talk.round().await);
    server.restart_empty().await;
    let outcomes = talk.rounds_until(fleet.until_ready()).await;
    assert_honest(&outcomes);
    assert_well(&fleet, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_halted_and_goes_on() {
    let mut server = Server::start().await;
    let fleet = Fleet::start(2, &server.url(), "").await;
    let mut talk = Talk::start(&fleet, 10).await;
    talk.rounds_delivered(10).await;
    server.stop();
    // Until a node has given its link up, not only until it has noticed.
    let given_up = async {
        drop(fleet.until_unready().await);
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
    let outcomes = talk.rounds_until(fleet.until_ready()).await;
    assert_honest(&outcomes);
    assert_well(&fleet, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_to_redis_are_cut() {
    let server = Server::start().await;
    let fleet = Fleet::start(2, &server.url(), "").await;
    let mut talk = Talk::start(&fleet, 10).await;
    talk.rounds_delivered(10).await;
    for kind in ["normal", "pubsub", "normal"] {
        server
            .command::<u64>(&["CLIENT", "KILL", "TYPE", kind])
            .await;
        let outcomes = talk.rounds_until(fleet.until_ready()).await;
        assert_honest(&outcomes);
    }
    fleet.nodes[0]
        .until_metric("wss_redis_subscriber_rebuilds_total ", |count| count >= 1.0)
        .await;
    assert_well(&fleet, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_fail_over_from_a_dead_master() {
    let mut sentinels = Sentinels::start().await;
    let redis = format!("sentinel_master = \"{}\"", sentinels.master_name());
    let fleet = Fleet::start(2, &sentinels.urls(), &redis).await;
    let mut talk = Talk::start(&fleet, 10).await;
    talk.rounds_delivered(10).await;
    // Killed and failed over while everybody talks: red, and green with the new master.
    let failed_over = async {
        let unready = fleet.until_unready();
        let ((), _) = tokio::join!(sentinels.kill_master(), unready);
    };
    let outcomes = talk.rounds_until(failed_over).await;
    assert_honest(&outcomes);
    let outcomes = talk.rounds_until(fleet.until_ready()).await;
    assert_honest(&outcomes);
    assert_well(&fleet, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_fail_over_while_the_old_master_lives() {
    let sentinels = Sentinels::start().await;
    // The only master that they watch need not be named.
    let fleet = Fleet::start(2, &sentinels.urls(), "").await;
    let mut talk = Talk::start(&fleet, 10).await;
    talk.rounds_delivered(10).await;
    let outcomes = talk.rounds_until(sentinels.fail_over()).await;
    assert_honest(&outcomes);
    let port = sentinels.master().await.port();
    let moved = async {
        // A node may be well with the old master until that is told that it is none.
        sentinels.until_replicated().await;
        let command = ["CLIENT", "LIST", "TYPE", "pubsub"];
        crate::redis::until("all nodes listen at the new master", async || {
            let master = sentinels.master().await;
            assert_eq!(master.port(), port);
            let clients: String = master.command(&command).await;
            (clients.matches(" sub=3 ").count() == 2).then_some(())
        })
        .await;
        fleet.until_ready().await;
    };
    let outcomes = talk.rounds_until(moved).await;
    assert_honest(&outcomes);
    assert_well(&fleet, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_dies_and_its_replica_takes_over() {
    let mut cluster = Cluster::start_with_failover().await;
    let fleet = Fleet::start(2, &cluster.urls(), "").await;
    let mut talk = Talk::start(&fleet, 10).await;
    talk.rounds_delivered(10).await;
    let slot = cluster.slot_of(&channel_of(&cluster, "n0").await).await;
    let master = cluster.master_of(slot).await;
    cluster.kill(master);
    // The other node's channel lives on, and the replica may be faster than that node's next look.
    let unready = async { drop(until_unready(&fleet.nodes[0]).await) };
    assert_honest(&talk.rounds_until(unready).await);
    assert_honest(&talk.rounds_until(cluster.until_settled()).await);
    assert_honest(&talk.rounds_until(fleet.until_ready()).await);
    assert_well(&fleet, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_is_halted_and_its_replica_takes_over() {
    let mut cluster = Cluster::start_with_failover().await;
    let fleet = Fleet::start(2, &cluster.urls(), "").await;
    let mut talk = Talk::start(&fleet, 10).await;
    talk.rounds_delivered(10).await;
    let slot = cluster.slot_of(&channel_of(&cluster, "n0").await).await;
    let master = cluster.master_of(slot).await;
    cluster.stop(master);
    // The other node's channel lives on, and the replica may be faster than that node's next look.
    let unready = async { drop(until_unready(&fleet.nodes[0]).await) };
    assert_honest(&talk.rounds_until(unready).await);
    assert_honest(&talk.rounds_until(cluster.until_settled()).await);
    assert_honest(&talk.rounds_until(fleet.until_ready()).await);
    cluster.cont(master);
    assert_honest(&talk.rounds_until(cluster.until_settled()).await);
    assert_well(&fleet, talk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_a_servers_channel_moves_while_everybody_talks() {
    let cluster = Cluster::start().await;
    let fleet = Fleet::start(2, &cluster.urls(), "").await;
    let mut talk = Talk::start(&fleet, 10).await;
    talk.rounds_delivered(10).await;
    let channel = channel_of(&cluster, "n0").await;
    let slot = cluster.slot_of(&channel).await;
    let from = cluster.master_of(slot).await;
    let to = (from + 1) % 3;
    assert_honest(&talk.rounds_until(cluster.move_slot(slot, to)).await);
    let moved = crate::redis::until("the node listens where the slot is now", async || {
        let node = cluster.node(to);
        let subscribers: Vec<redis::Value> =
            node.command(&["PUBSUB", "SHARDNUMSUB", &channel]).await;
        (subscribers.last() == Some(&redis::Value::Int(1))).then_some(())
    });
    assert_honest(&talk.rounds_until(moved).await);
    // Routes in a slot that moves go along.
    let slot = cluster.slot_of("user_servers:a0").await;
    let to = (cluster.master_of(slot).await + 1) % 3;
    assert_honest(&talk.rounds_until(cluster.move_slot(slot, to)).await);
    assert_well(&fleet, talk).await;
}

/// The channel of the node with the configured name `node`, from the route of a user that it holds.
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

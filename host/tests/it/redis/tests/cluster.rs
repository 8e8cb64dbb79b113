//! A cluster.

use redis::{AsyncCommands, cmd};

use crate::redis::Cluster;

#[tokio::test]
async fn a_cluster_spreads_the_slots_over_three_masters_with_a_replica_each() {
    let cluster = Cluster::start().await;
    for (slot, master) in [
        (0, 0),
        (5460, 0),
        (5461, 1),
        (10921, 1),
        (10922, 2),
        (16383, 2),
    ] {
        assert_eq!(cluster.master_of(slot).await, master, "slot {slot}");
        assert_eq!(cluster.replica_of(master).await, Some(master + 3));
    }
    assert_eq!(cluster.slot_of("123456789").await, 12739);
    assert_eq!(cluster.slot_of("a{123456789}b").await, 12739);
    assert_eq!(cluster.urls().split(',').count(), 6);
    let mut connection = cluster.connect().await;
    for number in 0..100 {
        let _: () = connection
            .set(format!("key:{number}"), number)
            .await
            .expect("the command succeeds");
    }
    let mut keys = 0;
    for master in 0..3 {
        let held: usize = cluster.node(master).command(&["DBSIZE"]).await;
        assert!(held > 0, "master {master} holds nothing");
        keys += held;
    }
    assert_eq!(keys, 100);
}

#[tokio::test]
async fn a_dead_master_of_a_cluster_is_failed_over_to_its_replica_and_comes_back_as_one() {
    let mut cluster = Cluster::start().await;
    let slot = cluster.slot_of("key").await;
    let dead = cluster.master_of(slot).await;
    let heir = cluster.replica_of(dead).await.expect("it has a replica");
    let mut connection = cluster
        .node(dead)
        .connect()
        .await
        .expect("it accepts clients");
    let _: () = connection
        .set("key", "value")
        .await
        .expect("the command succeeds");
    let copies: usize = cmd("WAIT")
        .arg(1)
        .arg(0)
        .query_async(&mut connection)
        .await
        .expect("it waits");
    assert_eq!(copies, 1);
    cluster.allow_failover().await;
    cluster.kill(dead);
    cluster.until_settled().await;
    cluster.forbid_failover().await;
    assert_eq!(cluster.master_of(slot).await, heir);
    assert_eq!(cluster.replica_of(heir).await, None);
    let value: String = cluster.node(heir).command(&["GET", "key"]).await;
    assert_eq!(value, "value");
    cluster.restart(dead).await;
    cluster.until_settled().await;
    assert_eq!(cluster.replica_of(heir).await, Some(dead));
}

#[tokio::test]
async fn a_halted_master_of_a_cluster_is_failed_over_and_becomes_a_replica_when_it_resumes() {
    let mut cluster = Cluster::start().await;
    let heir = cluster.replica_of(1).await.expect("it has a replica");
    cluster.allow_failover().await;
    cluster.stop(1);
    cluster.until_settled().await;
    cluster.forbid_failover().await;
    assert_eq!(cluster.master_of(6000).await, heir);
    cluster.cont(1);
    cluster.until_settled().await;
    assert_eq!(cluster.master_of(6000).await, heir);
    assert_eq!(cluster.replica_of(heir).await, Some(1));
}

#[tokio::test]
async fn a_slot_of_a_cluster_moves_with_its_keys() {
    let cluster = Cluster::start().await;
    let mut connection = cluster.connect().await;
    let key = |number: u32| format!("{{tag}}:{number}");
    for number in 0..250 {
        let _: () = connection
            .set(key(number), number)
            .await
            .expect("the command succeeds");
    }
    let slot = cluster.slot_of("tag").await;
    let from = cluster.master_of(slot).await;
    let to = (from + 1) % 3;
    cluster.move_slot(slot, to).await;
    assert_eq!(cluster.master_of(slot).await, to);
    let count = ["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()].map(str::to_owned);
    let count = count.each_ref().map(String::as_str);
    assert_eq!(cluster.node(to).command::<usize>(&count).await, 250);
    assert_eq!(cluster.node(from).command::<usize>(&count).await, 0);
    for number in 0..250 {
        let value: u32 = connection.get(key(number)).await.expect("it is found");
        assert_eq!(value, number);
    }
    let moved = cluster
        .node(from)
        .try_command::<String>(&["GET", &key(0)])
        .await;
    assert!(moved.is_err_and(|error| error.code() == Some("MOVED")));
}

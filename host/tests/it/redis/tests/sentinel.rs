//! Sentinels.

use std::future::ready;

use redis::{Client, cmd};

use crate::redis::{Sentinels, connections::connect};

#[tokio::test]
async fn sentinels_fail_a_dead_master_over_and_make_it_a_replica_when_it_is_back() {
    let mut sentinels = Sentinels::start().await;
    assert_eq!(sentinels.urls().split(',').count(), 3);
    let before = sentinels.master().await.port();
    sentinels
        .master()
        .await
        .command::<()>(&["SET", "key", "value"])
        .await;
    sentinels.until_replicated().await;
    let copies: usize = sentinels.master().await.command(&["WAIT", "1", "0"]).await;
    assert_eq!(copies, 1);
    sentinels.kill_master(ready(())).await;
    let master = sentinels.master().await;
    assert_ne!(master.port(), before);
    assert_eq!(master.command::<String>(&["GET", "key"]).await, "value");
    sentinels.restart_killed().await;
    sentinels.until_replicated().await;
    assert_ne!(sentinels.master().await.port(), before);
}

#[tokio::test]
async fn sentinels_fail_over_on_command() {
    let sentinels = Sentinels::start().await;
    let before = sentinels.master().await.port();
    sentinels.fail_over().await;
    let master = sentinels.master().await;
    assert_ne!(master.port(), before);
    master.command::<()>(&["SET", "key", "value"]).await;
    let sentinel = Client::open(sentinels.urls().split(',').next().expect("an address"));
    let sentinel = connect(&sentinel.expect("a valid address")).await;
    let mut sentinel = sentinel.expect("a connection");
    let (host, port): (String, u16) = cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(sentinels.master_name())
        .query_async(&mut sentinel)
        .await
        .expect("an address");
    assert_eq!((host.as_str(), port), ("127.0.0.1", master.port()));
}

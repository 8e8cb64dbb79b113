//! Properties of the Redis store beyond the contract: its cost, what it leaves behind, and its behaviour without Redis.

use std::{sync::Arc, time::Duration};

use signalbox::plugin::{ENTRY_BYTES, PluginStore, StoreEntry, StoreError};

use crate::{
    redis::{Options, Server, until},
    store_contract::redis_store,
};

const PLENTY: usize = 1 << 20;

async fn start() -> (Server, Arc<dyn PluginStore>) {
    let server = Server::start().await;
    let store = redis_store(&server.url(), "test:").await;
    (server, store)
}

fn entry(key: &str, ttl: Option<Duration>) -> StoreEntry<'_> {
    StoreEntry {
        key,
        value: b"x",
        ttl,
    }
}

#[tokio::test]
async fn keys_stand_under_the_prefix_and_share_one_slot() {
    let (server, store) = start().await;
    store.set("chat", PLENTY, entry("k", None)).await.unwrap();
    let late = Some(Duration::from_secs(3600));
    store.set("chat", PLENTY, entry("l", late)).await.unwrap();
    let mut keys: Vec<String> = server.command(&["KEYS", "*"]).await;
    keys.sort();
    let expected = ["lasting", "passing", "value:k", "value:l"];
    assert_eq!(
        keys,
        expected.map(|name| format!("test:plugin_store:{{chat}}:{name}"))
    );
}

#[tokio::test]
async fn reading_is_one_plain_command_and_a_change_is_one_script() {
    let (server, store) = start().await;
    store.set("p", PLENTY, entry("k", None)).await.unwrap();
    server.reset_commandstats().await;
    store.get("p", "k").await.unwrap();
    let calls = server.commandstats().await;
    assert_eq!(calls.get("get"), Some(&1));
    assert!(!calls.contains_key("evalsha"), "{calls:?}");
    store.set("p", PLENTY, entry("k", None)).await.unwrap();
    let calls = server.commandstats().await;
    assert_eq!(calls.get("evalsha"), Some(&1));
    assert!(
        !calls.contains_key("eval"),
        "the server knows the script: {calls:?}"
    );
}

#[tokio::test]
async fn a_server_without_the_scripts_gets_them_again() {
    let (server, store) = start().await;
    for sum in 1..=3 {
        assert_eq!(store.increment("p", PLENTY, "n", 1, None).await, Ok(sum));
        server.command::<()>(&["SCRIPT", "FLUSH"]).await;
    }
}

#[tokio::test]
async fn values_with_a_time_leave_nothing_behind() {
    let (server, store) = start().await;
    for n in 0..50 {
        let ttl = Some(Duration::from_millis(n));
        store
            .set("p", PLENTY, entry(&n.to_string(), ttl))
            .await
            .unwrap();
    }
    until("Redis is empty", async || {
        (server.command::<u64>(&["DBSIZE"]).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn many_expired_values_are_removed_by_several_calls() {
    let (server, store) = start().await;
    // As if 5,000 values of 10 bytes (with their keys) had expired long ago, and one would expire much later.
    let passing = "test:plugin_store:{p}:passing";
    let fill = "redis.call('ZADD', KEYS[1], -50010, 'sum', 9e12, '10:late') \
                for n = 1, 5000 do redis.call('ZADD', KEYS[1], n, '10:' .. n) end";
    server.command::<()>(&["EVAL", fill, "1", passing]).await;
    server.reset_commandstats().await;
    store.set("p", PLENTY, entry("k", None)).await.unwrap();
    assert_eq!(
        server.command::<u64>(&["ZCARD", passing]).await,
        5002 - 16,
        "room enough: 16"
    );
    store
        .set("p", ENTRY_BYTES + 20, entry("k", None))
        .await
        .unwrap();
    assert_eq!(server.command::<u64>(&["ZCARD", passing]).await, 2);
    let scripts = server.commandstats().await["evalsha"];
    assert_eq!(scripts, 1 + 5, "1,016 by each");
}

#[tokio::test]
async fn without_redis_the_store_fails_in_time_and_recovers_with_it() {
    let (mut server, store) = start().await;
    store.set("p", PLENTY, entry("k", None)).await.unwrap();
    for kill in [false, true] {
        if kill {
            server.kill9()
        } else {
            server.stop()
        }
        // The first answers may take the command timeout; a store that waits longer fails the test.
        let all = async {
            for _ in 0..3 {
                let unavailable = StoreError::Unavailable;
                assert_eq!(store.get("p", "k").await, Err(unavailable));
                let set = store.set("p", PLENTY, entry("k", None)).await;
                assert_eq!(set, Err(unavailable));
                let sum = store.increment("p", PLENTY, "n", 1, None).await;
                assert_eq!(sum, Err(unavailable));
            }
        };
        let patience = crate::harness::PATIENCE;
        tokio::time::timeout(patience, all)
            .await
            .expect("every call ends");
        if kill {
            server.restart_empty().await
        } else {
            server.cont()
        }
        until("the store works again", async || {
            store.set("p", PLENTY, entry("k", None)).await.ok()
        })
        .await;
    }
}

#[tokio::test]
async fn the_access_rules_of_the_manual_are_enough_for_a_store() {
    let manual = include_str!("../../../docs/redis.md");
    let rules = manual
        .lines()
        .find(|line| line.starts_with("user signalbox on >PASSWORD "))
        .expect("the rules");
    let server = Server::start_with(Options {
        settings: vec![rules.replace("PASSWORD", "hush")],
        ..Options::default()
    })
    .await;
    let url = server.url().replace("redis://", "redis://signalbox:hush@");
    let store = redis_store(&url, "").await;
    let soon = Some(Duration::from_millis(1));
    for ttl in [None, soon, Some(Duration::ZERO)] {
        store.set("p", PLENTY, entry("k", ttl)).await.unwrap();
        store.increment("p", PLENTY, "n", 1, ttl).await.unwrap();
        store.remove("p", "n").await.unwrap();
        let swapped = store.compare_and_swap("p", PLENTY, Some(b"x"), entry("k", ttl));
        swapped.await.unwrap();
    }
    store.increment("p", PLENTY, "m", 1, soon).await.unwrap();
    until("a value expires", async || {
        store.get("p", "m").await.unwrap().is_none().then_some(())
    })
    .await;
    // With an expired value to evict, and without room.
    let full = store.increment("p", 1, "long name", 1, None).await;
    assert_eq!(full, Err(StoreError::TooLarge));
    let log: Vec<redis::Value> = server.command(&["ACL", "LOG"]).await;
    assert!(log.is_empty(), "{log:?}");
}

//! The number of instances of a plugin: as many as its load needs, within its bounds.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use signalbox::{
    config::InstanceMode,
    metrics::FailureKind,
    plugin::{PluginStore, PluginVersion, Trigger},
};
use tokio::time::timeout;

use crate::{
    guests::{component, stamped},
    harness::PATIENCE,
    redis::until,
    runtime::{FILE_BYTES_MAX, live, manager_with, message, plugin},
};

/// A plugin with `min` to `max` instances; idle ones are released after a tenth of a second.
async fn start(
    bytes: &[u8],
    config: &str,
    (min, max): (usize, usize),
) -> (Arc<PluginVersion>, Arc<dyn PluginStore>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.wasm");
    std::fs::write(&file, bytes).unwrap();
    let mut config = plugin("p", &file, config);
    config.instances = InstanceMode::Pool { max, min };
    config.limits.instances_idle_time = Duration::from_millis(100);
    let store = Arc::default();
    let manager = manager_with(&store);
    let refusals = manager
        .apply(&[config], FILE_BYTES_MAX, Trigger::Start)
        .await;
    assert!(refusals.is_empty(), "{refusals:?}");
    (live(&manager, "p"), store)
}

async fn until_size(version: &PluginVersion, size: (usize, usize)) {
    let reached = async {
        while version.pool_size() != size {
            tokio::task::yield_now().await;
        }
    };
    let found = timeout(PATIENCE, reached).await;
    found.unwrap_or_else(|_| panic!("{:?} are not {size:?}", version.pool_size()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_follow_the_load_within_bounds() {
    let (version, store) = start(&stamped("1"), r#"{"handles":["x"]}"#, (1, 3)).await;
    assert_eq!(version.pool_size(), (1, 1), "as many as are kept ready");
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let version = version.clone();
            tokio::spawn(async move {
                let answer = version.handle(None, message("x", r#"{"wait":"gate"}"#));
                assert!(matches!(answer.await, Ok(Ok(_))));
            })
        })
        .collect();
    // The maximum number of instances is in use, and two calls wait.
    until_size(&version, (0, 3)).await;
    let entry = signalbox::plugin::StoreEntry {
        key: "gate",
        value: b"open",
        ttl: None,
    };
    store.set("p", usize::MAX, entry).await.unwrap();
    for call in join_all(calls).await {
        call.unwrap();
    }
    until_size(&version, (1, 1)).await;
    // Their memory is released a moment later, outside the message path.
    until("the others are gone", async || {
        (version.stats().instances() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_instance_is_replaced_in_the_background_up_to_the_minimum() {
    let (version, _) = start(&component("hostile"), "{}", (2, 4)).await;
    for _ in 0..10 {
        let answer = version.handle(None, message("hostile.panic", "1")).await;
        assert_eq!(answer.unwrap_err().kind, FailureKind::Trap);
    }
    until_size(&version, (2, 2)).await;
}

//! The plugin runtime on its own: instances, versions and reloads.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use signalbox::{
    config::{InstanceMode, OnFailure, PluginConfig, PluginLimits},
    metrics::{FailureKind, Metrics},
    plugin::{
        Action, GuestMessage, Loader, MemoryStore, PluginManager, PluginSlot, PluginStore,
        PluginVersion, Trigger,
    },
};
use tokio::time::timeout;

use crate::{
    guests::{component, stamped},
    harness::{PATIENCE, plugin_cache},
};

pub(crate) const FILE_BYTES_MAX: usize = 32 << 20;

pub(crate) fn manager() -> PluginManager {
    manager_with(&Arc::default())
}

/// Like [`manager`], with a store that the test can inspect.
pub(crate) fn manager_with(store: &Arc<MemoryStore>) -> PluginManager {
    let metrics = Arc::<Metrics>::default();
    PluginManager::new(loader_with(store.clone(), &metrics), metrics)
}

/// The loader, with the cache that all tests share.
pub(crate) fn loader(metrics: &Arc<Metrics>) -> Loader {
    loader_with(Arc::default(), metrics)
}

/// Like [`loader`], with a store that the test can inspect.
pub(crate) fn loader_with(store: Arc<MemoryStore>, metrics: &Arc<Metrics>) -> Loader {
    Loader::new("n", Some(&plugin_cache()), store, metrics.clone()).expect("the engine starts")
}

/// A plugin with limits that a loaded machine does not reach.
pub(crate) fn plugin(name: &str, file: &Path, config: &str) -> PluginConfig {
    PluginConfig {
        name: name.to_owned(),
        path: file.to_owned(),
        events: vec!["*".to_owned()],
        on_failure: OnFailure::Reject,
        instances: InstanceMode::Pool { max: 4, min: 2 },
        limits: PluginLimits {
            call_cpu_max: Duration::from_secs(10),
            call_time_max: PATIENCE,
            store_calls_max: 10_000,
            ..PluginLimits::default()
        },
        rollout: None,
        config_json: config.to_owned(),
    }
}

/// A message without a receiver.
pub(crate) fn message<'m>(event_type: &'m str, payload: &'m str) -> GuestMessage<'m> {
    GuestMessage {
        id: "1",
        event_type,
        sender: "ann",
        destination: None,
        payload,
        timestamp: 0,
    }
}

pub(crate) fn live(manager: &PluginManager, name: &str) -> Arc<PluginVersion> {
    let set = manager.live();
    let slot = set.slots().iter().find(|slot| slot.config().name == name);
    slot.and_then(PluginSlot::version)
        .expect("it is live")
        .clone()
}

/// The payload of the one message that a handler sends.
async fn handled(version: &Arc<PluginVersion>, payload: &str) -> String {
    let answer = version.handle(None, message("x", payload)).await;
    match answer
        .expect("no failure")
        .expect("no rejection")
        .as_slice()
    {
        [Action::Send(draft)] => draft.payload.clone(),
        other => panic!("expected one message, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_ends_on_the_old_version_which_is_dropped_then() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stamp.wasm");
    std::fs::write(&file, stamped("old")).unwrap();
    let configs = [plugin("stamp", &file, r#"{"handles":["x"]}"#)];
    let manager = manager();
    assert!(
        manager
            .apply(&configs, FILE_BYTES_MAX, Trigger::Start)
            .await
            .is_empty()
    );
    let old = live(&manager, "stamp");
    let waiting = tokio::spawn(async move { handled(&old, r#"{"wait":"gate"}"#).await });
    let watched = Arc::downgrade(&live(&manager, "stamp"));
    while watched
        .upgrade()
        .is_some_and(|old| old.pool_size() == (2, 2))
    {
        tokio::task::yield_now().await;
    }

    std::fs::write(&file, stamped("new")).unwrap();
    assert!(
        manager
            .apply(&configs, FILE_BYTES_MAX, Trigger::File)
            .await
            .is_empty()
    );
    assert!(watched.upgrade().is_some(), "it is still answering");
    let new = live(&manager, "stamp");
    assert!(
        handled(&new, r#"{"open":"gate"}"#)
            .await
            .contains("STAMP-0000000new")
    );
    assert!(waiting.await.unwrap().contains("STAMP-0000000old"));
    let gone = async {
        while watched.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone)
        .await
        .expect("nobody holds the old version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_fail_are_replaced_and_never_more_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hostile.wasm");
    std::fs::write(&file, component("hostile")).unwrap();
    let configs = [plugin("hostile", &file, "{}")];
    let manager = manager();
    manager
        .apply(&configs, FILE_BYTES_MAX, Trigger::Start)
        .await;
    let version = live(&manager, "hostile");
    let calls = (0..50).map(async |number| {
        let fault = if number % 2 == 0 {
            "hostile.panic"
        } else {
            "hostile.nothing"
        };
        let answer = version.handle(None, message(fault, "1")).await;
        let (_, existing) = version.pool_size();
        assert!(existing <= 4, "{existing} instances");
        assert_eq!(answer.is_ok(), number % 2 == 1, "{answer:?}");
    });
    join_all(calls).await;
    let refilled = async {
        while version.pool_size().0 < 2 || version.pool_size().0 != version.pool_size().1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refilled)
        .await
        .expect("idle instances are there again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_find_all_instances_busy_fail_in_the_end_as_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stamp.wasm");
    std::fs::write(&file, stamped("1")).unwrap();
    let mut config = plugin("stamp", &file, r#"{"handles":["x"]}"#);
    config.instances = InstanceMode::Single;
    // Enough for the last call on a busy machine.
    config.limits.call_time_max = Duration::from_secs(5);
    config.limits.call_cpu_max = Duration::from_secs(5);
    let manager = manager();
    manager
        .apply(&[config], FILE_BYTES_MAX, Trigger::Start)
        .await;
    let version = live(&manager, "stamp");
    let kind = async |payload| {
        let answer = version.handle(None, message("x", payload)).await;
        answer.err().map(|error| error.kind)
    };
    // The first call holds the only instance until its time limit, and the others wait that long.
    let kinds = tokio::join!(kind(r#"{"wait":"never"}"#), kind("{}"), kind("{}"));
    assert_eq!(kinds.0, Some(FailureKind::Deadline));
    for kind in [kinds.1, kinds.2] {
        assert!(
            matches!(kind, None | Some(FailureKind::Unavailable)),
            "{kind:?}"
        );
    }
    assert_eq!(kind("{}").await, None, "it works again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_takes_long_to_load_does_not_hold_up_the_reload_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let (slow, quick) = (dir.path().join("slow.wasm"), dir.path().join("quick.wasm"));
    std::fs::write(&quick, stamped("1")).unwrap();
    let mut hanging = plugin("slow", &slow, r#"{"init":"loop"}"#);
    hanging.limits.init_time_max = PATIENCE;
    let configs = [hanging, plugin("quick", &quick, "{}")];
    let manager = manager();
    manager
        .apply(&configs, FILE_BYTES_MAX, Trigger::Start)
        .await;
    let first = live(&manager, "quick").label().to_owned();
    std::fs::write(&slow, component("hostile")).unwrap();
    std::fs::write(&quick, stamped("2")).unwrap();
    let swapped = async {
        while live(&manager, "quick").label() == first {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = manager.apply(&configs, FILE_BYTES_MAX, Trigger::File) => {
            panic!("the quick one was not live before the slow one was refused")
        }
        () = swapped => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_take_long_wait_for_few_of_those_of_another_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hostile.wasm");
    std::fs::write(&file, component("hostile")).unwrap();
    let mut looping = plugin("looping", &file, "{}");
    looping.instances = InstanceMode::Pool { max: 16, min: 2 };
    looping.limits.call_cpu_max = Duration::from_millis(200);
    let patient = plugin("patient", &file, r#"{"event_types":"patient.*"}"#);
    let manager = manager();
    manager
        .apply(&[looping, patient], FILE_BYTES_MAX, Trigger::Start)
        .await;
    let (looping, patient) = (live(&manager, "looping"), live(&manager, "patient"));
    let ended = Arc::<AtomicUsize>::default();
    let loops: Vec<_> = (0..16)
        .map(|_| {
            let (looping, ended) = (looping.clone(), ended.clone());
            tokio::spawn(async move {
                let answer = looping.handle(None, message("hostile.loop", "1")).await;
                ended.fetch_add(1, Ordering::Relaxed);
                answer.err().map(|error| error.kind)
            })
        })
        .collect();
    // By then the others are queued.
    while ended.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        let answer = patient.handle(None, message("hostile.spin-a-little", "1"));
        assert!(answer.await.is_ok());
    }
    // Each waited for the running call, and for one more if that ended first.
    let ended = ended.load(Ordering::Relaxed);
    assert!(ended < 12, "three calls waited for {ended} of 16");
    for kind in join_all(loops).await {
        assert_eq!(kind.unwrap(), Some(FailureKind::Deadline));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_sleeps_leaves_its_place_to_calls_that_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hostile.wasm");
    std::fs::write(&file, component("hostile")).unwrap();
    let configs = [
        plugin("sleeping", &file, "{}"),
        plugin("running", &file, r#"{"event_types":"running.*"}"#),
    ];
    let store = Arc::<MemoryStore>::default();
    let manager = manager_with(&store);
    manager
        .apply(&configs, FILE_BYTES_MAX, Trigger::Start)
        .await;
    let (sleeping, running) = (live(&manager, "sleeping"), live(&manager, "running"));
    let sleep = sleeping.handle(None, message("hostile.spin-and-wait", "1"));
    let run = async {
        while store.get("sleeping", "asleep").await == Ok(None) {
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            let answer = running.handle(None, message("hostile.spin-a-little", "1"));
            assert!(answer.await.is_ok());
        }
    };
    tokio::select! {
        answer = sleep => panic!("the running call waited for the sleeping one: {answer:?}"),
        () = run => {}
    }
}

#[tokio::test]
async fn a_refused_file_is_retried_when_it_changes_or_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stamp.wasm");
    let configs = [plugin("stamp", &file, "{}")];
    let manager = manager();
    let refusals = async |bytes: &[u8], trigger| {
        std::fs::write(&file, bytes).unwrap();
        manager.apply(&configs, FILE_BYTES_MAX, trigger).await.len()
    };
    assert_eq!(refusals(b"broken", Trigger::Start).await, 1);
    assert_eq!(
        refusals(b"broken", Trigger::File).await,
        0,
        "nothing is new"
    );
    assert_eq!(refusals(b"broken", Trigger::Signal).await, 1);
    assert_eq!(refusals(b"broken again", Trigger::File).await, 1);
    assert_eq!(refusals(&stamped("1"), Trigger::File).await, 0);
    assert_eq!(
        refusals(b"broken again", Trigger::File).await,
        1,
        "another one was live"
    );
    assert_eq!(
        refusals(&stamped("1"), Trigger::File).await,
        0,
        "what is live"
    );
    assert_eq!(refusals(b"broken again", Trigger::File).await, 1);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        manager
            .apply(&configs, FILE_BYTES_MAX, Trigger::File)
            .await
            .len(),
        1
    );
    assert_eq!(
        manager
            .apply(&configs, FILE_BYTES_MAX, Trigger::File)
            .await
            .len(),
        0
    );
    assert!(
        manager.live().missing().next().is_none(),
        "what was live still is"
    );
}

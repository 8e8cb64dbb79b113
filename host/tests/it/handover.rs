//! A `single` plugin keeps its state in memory and hands it over when it is swapped.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use signalbox::{
    config::{InstanceMode, PluginConfig},
    plugin::{
        Action, Change, ChangeError, MemoryStore, PluginManager, PluginStore, PushOptions,
        StoreEntry, Trigger,
    },
};

use crate::{
    guests::{accepting, counter, stamp_number},
    harness::{Node, PATIENCE},
    runtime::{FILE_BYTES_MAX, live, manager_with, message, plugin},
};

/// One instance, and limits that no call reaches on a busy machine.
const CONFIG: &str = r#"
[limits]
messages_per_second = 0
[[plugins]]
name = "counter"
path = "counter.wasm"
events = ["count", "count.*"]
instances = "single"
call_cpu_max = "10s"
call_time_max = "25s"
handover_time_max = "10s"
"#;

fn swaps(outcome: &str) -> String {
    format!("wss_plugin_swaps_total{{plugin=\"counter\",outcome=\"{outcome}\"}} ")
}

fn handovers(outcome: &str) -> String {
    format!("wss_plugin_handovers_total{{plugin=\"counter\",outcome=\"{outcome}\"}} ")
}

/// The longest time that a handover may be allowed. All that comes before a step that never ends takes less, also on a
/// busy machine.
const LONG: Duration = Duration::from_secs(10);

/// Clients that count at the same time.
const CLIENTS: usize = 6;
/// The pause of a client after each answer. It leaves CPU time for swaps.
const PAUSE: Duration = Duration::from_millis(10);
const SWAPS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_in_memory_survives_twenty_swaps_under_load_without_loss_or_doubling() {
    let node = Node::start_with(&[("counter.wasm", &counter("1"))], CONFIG).await;
    let (stop, newest) = (Arc::<AtomicBool>::default(), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = node.client(&format!("u{number}")).await;
        let (stop, newest) = (stop.clone(), newest.clone());
        clients.push(tokio::spawn(async move {
            let (mut counts, mut version) = (Vec::new(), 0);
            while !stop.load(Ordering::Relaxed) {
                client.send(r#"{"type":"count"}"#).await;
                let answer = client.json().await["payload"].take();
                assert_eq!(answer["known"], true, "one version for the whole message");
                let stamp = stamp_number(answer["stamp"].as_str().expect("a stamp"));
                assert!(stamp >= version, "{stamp} came after {version}");
                version = stamp;
                newest.fetch_max(version, Ordering::Relaxed);
                counts.push(answer["count"].as_u64().expect("a count"));
                tokio::time::sleep(PAUSE).await;
            }
            assert!(counts.is_sorted(), "in order for each client");
            (counts, client)
        }));
    }
    for version in 2..=SWAPS + 1 {
        node.replace("counter.wasm", &counter(&version.to_string()));
        node.until_metric(&swaps("live"), |live| live == version as f64)
            .await;
        while newest.load(Ordering::Relaxed) < version {
            assert!(clients.iter().all(|client| !client.is_finished()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (mut counted, mut connected) = (Vec::new(), Vec::new());
    for client in clients {
        let (counts, client) = client.await.unwrap();
        counted.extend(counts);
        connected.push(client);
    }
    counted.sort_unstable();
    let all: Vec<_> = (1..=counted.len() as u64).collect();
    assert_eq!(counted, all, "each number once");
    println!(
        "{} messages were counted across {SWAPS} swaps",
        counted.len()
    );
    assert_eq!(node.metric(&swaps("refused")).await, Some(0.0));
    let handed_over = node.metric(&handovers("handed_over")).await;
    assert_eq!(handed_over, Some(SWAPS as f64));
    for kind in ["trap", "deadline", "memory", "output", "unavailable"] {
        let failures = format!("wss_plugin_failures_total{{plugin=\"counter\",kind=\"{kind}\"}} ");
        assert_eq!(node.metric(&failures).await, Some(0.0), "{kind}");
    }
    let lost = node.metric("wss_unexpected_disconnects_total ").await;
    assert_eq!(lost, Some(0.0), "of {} clients", connected.len());
}

/// A manager with a counter plugin, and the folder of its file.
pub(crate) struct Counting {
    pub(crate) manager: Arc<PluginManager>,
    store: Arc<MemoryStore>,
    _dir: tempfile::TempDir,
    file: PathBuf,
    pub(crate) config: PluginConfig,
}

impl Counting {
    pub(crate) async fn start(first: &str) -> Self {
        Self::start_with(first, PATIENCE, PATIENCE).await
    }

    /// Like [`Counting::start`], with a time limit for `init` (also for `save`), and one for a handover to the first
    /// version.
    pub(crate) async fn start_with(
        first: &str,
        init_time_max: Duration,
        handover_time_max: Duration,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("counter.wasm");
        let mut config = plugin("counter", &file, "{}");
        config.instances = InstanceMode::Single;
        config.limits.init_time_max = init_time_max;
        config.limits.handover_time_max = handover_time_max;
        let store = Arc::<MemoryStore>::default();
        let counting = Self {
            manager: Arc::new(manager_with(&store)),
            store,
            config,
            _dir: dir,
            file,
        };
        assert_eq!(counting.swap(&counter(first), Trigger::Start).await, None);
        counting
    }

    /// The reason why the version is refused, or None if it goes live.
    pub(crate) async fn swap(&self, bytes: &[u8], trigger: Trigger) -> Option<String> {
        std::fs::write(&self.file, bytes).unwrap();
        let configs = [self.config.clone()];
        let refusals = self.manager.apply(&configs, FILE_BYTES_MAX, trigger).await;
        refusals.first().map(|(_, error)| error.to_string())
    }

    /// Lets slow versions continue.
    pub(crate) async fn open(&self) {
        let entry = StoreEntry {
            key: "open",
            value: b"1",
            ttl: None,
        };
        self.store.set("counter", usize::MAX, entry).await.unwrap();
    }

    /// Makes the live version count, and returns the count.
    pub(crate) async fn count(&self) -> u64 {
        let set = self.manager.enter().await;
        let slot = &set.slots()[0];
        let version = slot.version().expect("it is live").clone();
        let seen = version.validate(None, message("count", "1")).await;
        assert!(matches!(seen, Ok(Ok(()))), "{seen:?}");
        let answer = version.handle(None, message("count", "1")).await;
        match answer.as_ref().map(|answer| answer.as_deref()) {
            Ok(Ok([Action::Send(draft)])) => {
                let payload: Value = serde_json::from_str(&draft.payload).unwrap();
                assert_eq!(payload["known"], true);
                payload["count"].as_u64().unwrap()
            }
            other => panic!("expected one message, got {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_failure_of_a_handover_the_old_version_continues_with_its_state() {
    // The live version, the new version, the time limit of the handover, and the expected error.
    for (old, new, time_max, expected) in [
        (
            "1",
            "restore-no",
            PATIENCE,
            "handover: restore refused: this version cannot read that",
        ),
        (
            "1",
            "restore-pa",
            PATIENCE,
            "this version panics when it restores",
        ),
        (
            "1",
            "restore-lo",
            LONG,
            "handover: restore and the steps before it took longer than 10s (`handover_time_max`)",
        ),
        (
            "save-refus",
            "2",
            PATIENCE,
            "handover: save refused: this version saves nothing",
        ),
        (
            "save-huge",
            "2",
            PATIENCE,
            "handover: the state has 8388608 bytes, the limit is 4194304 (`handover_bytes_max`)",
        ),
        (
            "save-slow",
            "2",
            LONG,
            "handover: save and the steps before it took longer than 10s (`handover_time_max`)",
        ),
    ] {
        let mut counting = Counting::start(old).await;
        counting.config.limits.handover_time_max = time_max;
        for count in 1..=3 {
            assert_eq!(counting.count().await, count);
        }
        let first = live(&counting.manager, "counter");
        // Meanwhile, calls arrive one after another.
        let (done, mut count) = (AtomicBool::new(false), 3);
        let swap = async {
            let refusal = counting.swap(&counter(new), Trigger::Signal).await;
            done.store(true, Ordering::Relaxed);
            counting.open().await;
            refusal
        };
        let calls = async {
            while !done.load(Ordering::Relaxed) {
                count += 1;
                assert_eq!(counting.count().await, count, "{old} to {new}");
                tokio::task::yield_now().await;
            }
        };
        let (refusal, ()) = tokio::join!(swap, calls);
        let refusal = refusal.unwrap_or_else(|| panic!("{new} went live after {old}"));
        assert!(refusal.contains(expected), "{old} to {new}: {refusal}");
        assert!(Arc::ptr_eq(&first, &live(&counting.manager, "counter")));
        assert_eq!(counting.count().await, count + 1, "{old} to {new}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_that_traps_or_never_ends_costs_the_state_and_the_old_version_serves_on() {
    for (fault, init, handover) in [
        ("save-panic", PATIENCE, PATIENCE),
        ("save-loop", LONG, LONG / 2),
    ] {
        let counting = Counting::start_with(fault, init, handover).await;
        assert_eq!(counting.count().await, 1);
        let refusal = counting.swap(&counter("2"), Trigger::Signal).await;
        let refusal = refusal.expect("it is refused");
        assert!(refusal.contains("handover: save "), "{refusal}");
        assert_eq!(counting.count().await, 1, "after {fault} it starts empty");
        assert_eq!(counting.count().await, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_instance_that_traps_restarts_with_empty_state() {
    let node = Node::start_with(&[("counter.wasm", &counter("1"))], CONFIG).await;
    let mut ann = node.client("ann").await;
    let mut count = async |event_type: &str| {
        ann.send(&json!({ "type": event_type }).to_string()).await;
        ann.json().await["payload"].take()
    };
    assert_eq!(count("count").await["count"], 1);
    assert_eq!(count("count").await["count"], 2);
    assert_eq!(count("count.panic").await["code"], "plugin_failed");
    assert_eq!(count("count").await["count"], 1, "its memory is gone");
    node.replace("counter.wasm", &counter("2"));
    node.until_metric(&swaps("live"), |live| live == 2.0).await;
    assert_eq!(count("count").await["count"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handover_waits_for_messages_in_progress_and_gives_up_if_they_do_not_end() {
    let mut counting = Counting::start("1").await;
    counting.config.limits.handover_time_max = Duration::from_millis(50);
    assert_eq!(counting.count().await, 1);
    // For example, a message that another plugin of the chain is handling.
    let under_way = counting.manager.enter().await;
    let refusal = counting.swap(&counter("2"), Trigger::Signal).await;
    let refusal = refusal.expect("it is refused");
    assert!(
        refusal.contains("messages that were under way did not end within 50ms"),
        "{refusal}"
    );
    assert_eq!(counting.count().await, 2);
    drop(under_way);
    counting.config.limits.handover_time_max = PATIENCE;
    assert_eq!(counting.swap(&counter("2"), Trigger::Signal).await, None);
    assert_eq!(counting.count().await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_handover_on_both_sides_a_single_plugin_starts_empty() {
    let counting = Counting::start("1").await;
    assert_eq!(counting.count().await, 1);
    assert_eq!(counting.swap(&accepting(), Trigger::Signal).await, None);
    assert_eq!(counting.swap(&counter("2"), Trigger::Signal).await, None);
    assert_eq!(counting.count().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_hands_the_state_over_if_it_can_and_proceeds_without_it_otherwise() {
    let counting = Counting::start("restore-no").await;
    assert_eq!(counting.count().await, 1);
    let push = counting
        .manager
        .push("counter", counter("2").into(), PushOptions::default())
        .await;
    assert!(matches!(push, Ok(Change::Live { .. })), "{push:?}");
    assert_eq!(counting.count().await, 2);
    // The earlier version cannot read the state, but a rollback must go ahead without it.
    let back = counting.manager.roll_back("counter", None).await;
    assert!(matches!(back, Ok(Change::Live { .. })), "{back:?}");
    assert_eq!(counting.count().await, 1);
    let push = counting
        .manager
        .push("counter", counter("3").into(), PushOptions::default())
        .await;
    assert!(matches!(push, Ok(Change::Live { .. })), "{push:?}");
    let push = counting
        .manager
        .push("counter", counter("4").into(), PushOptions::default())
        .await;
    assert!(matches!(push, Ok(Change::Live { .. })), "{push:?}");
    assert_eq!(counting.count().await, 2);
    let back = counting.manager.roll_back("counter", None).await;
    assert!(matches!(back, Ok(Change::Live { .. })), "{back:?}");
    assert_eq!(counting.count().await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_of_a_failed_handover_is_reported() {
    let counting = Counting::start("1").await;
    assert_eq!(counting.count().await, 1);
    let bytes = counter("restore-no").into();
    match counting
        .manager
        .push("counter", bytes, PushOptions::default())
        .await
    {
        Err(ChangeError::Refused { error, .. }) => {
            assert_eq!(error.step(), "handover");
            assert!(error.to_string().contains("cannot read that"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(counting.count().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_handover_is_counted_by_its_outcome_and_its_time_with_it() {
    let node = Node::start_with(&[("counter.wasm", &counter("1"))], CONFIG).await;
    // The last two start with empty state: one has no handover, and the other finds no state.
    for (component, outcome, times) in [
        (counter("2"), "handed_over", 1.0),
        (counter("restore-no"), "given_up", 1.0),
        (counter("3"), "handed_over", 2.0),
        (accepting(), "begun_anew", 1.0),
        (counter("4"), "begun_anew", 2.0),
    ] {
        node.replace("counter.wasm", &component);
        node.until_metric(&handovers(outcome), |count| count == times)
            .await;
    }
    let held = "wss_plugin_handover_ms_count{plugin=\"counter\"} ";
    assert_eq!(node.metric(held).await, Some(5.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_many_callers_meet_one_instance_in_turn() {
    let counting = Counting::start("1").await;
    let calls = (0..50).map(|_| counting.count());
    let counted: BTreeSet<_> = join_all(calls).await.into_iter().collect();
    assert_eq!(counted, (1..=50).collect());
    assert_eq!(live(&counting.manager, "counter").pool_size(), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_does_not_wait_for_a_version_being_loaded_and_supersedes_it() {
    let counting = Counting::start("1").await;
    assert_eq!(counting.swap(&counter("2"), Trigger::Signal).await, None);
    let first = signalbox::plugin::Sha256::of(&counter("1"));
    let new = counter("init-slow");
    let mut swap = Box::pin(counting.swap(&new, Trigger::File));
    // The reload comes first, and its `init` waits.
    let changed = tokio::select! {
        biased;
        refusal = &mut swap => panic!("the rollback waited for the reload: {refusal:?}"),
        changed = counting.manager.roll_back("counter", None) => changed,
    };
    assert!(matches!(changed, Ok(Change::Live { .. })), "{changed:?}");
    assert_eq!(*live(&counting.manager, "counter").hash(), first);
    counting.open().await;
    assert_eq!(swap.await, None);
    assert_eq!(*live(&counting.manager, "counter").hash(), first);
    // It stays so until the file changes.
    assert_eq!(counting.swap(&counter("3"), Trigger::File).await, None);
    assert_ne!(*live(&counting.manager, "counter").hash(), first);
}

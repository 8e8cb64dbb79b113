//! A `single` plugin whose new version is rolled back automatically: what happens to its state, also while that is
//! being handed over.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use signalbox::{
    config::ProbationConfig,
    pipeline::{self, Message, Outcome},
    plugin::{Trigger, VersionView},
};

use crate::{
    guests::{counter, stamp_of},
    handover::Counting,
    harness::PATIENCE,
    redis::until,
    runtime::live,
};

/// With these limits, no version is judged.
fn lenient() -> ProbationConfig {
    ProbationConfig {
        time: Duration::from_secs(3600),
        calls: 1_000_000,
        failure_percent: 1,
        calls_min: 1_000_000,
        users_min: 3,
    }
}

/// So many calls that trap that the successful calls in the meantime are never a hundred times as many.
const TRAPS: usize = 40;

/// With these limits, a version that trapped this often has failed.
fn strict() -> ProbationConfig {
    ProbationConfig {
        calls_min: 20,
        ..lenient()
    }
}

/// `first` has counted to three; `second` is on probation after it, and has trapped. `first` takes the state back only
/// within `time_max`.
async fn trapping(first: &str, second: &str, time_max: Duration) -> Counting {
    let mut counting = Counting::start_with(first, PATIENCE, time_max).await;
    counting.config.limits.handover_time_max = PATIENCE;
    counting.manager.set_probation(lenient());
    let manager = counting.manager.clone();
    tokio::spawn(async move { manager.supervise().await });
    for count in 1..=3 {
        assert_eq!(counting.count().await, count);
    }
    let refusal = counting.swap(&counter(second), Trigger::Signal).await;
    assert_eq!(refusal, None);
    assert_eq!(counting.count().await, 4, "the state came along");
    for number in 0..TRAPS {
        let visit = counting.manager.enter().await;
        let (user, payload) = (
            format!("u{}", number % 4),
            format!("{:?}", stamp_of(second)),
        );
        let outcome = pipeline::run(&visit, None, panic_of(&user, &payload)).await;
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    }
    counting
}

/// A message of `user` at which the version with the stamp `payload` panics, and the one before it does not.
fn panic_of<'m>(user: &'m str, payload: &'m str) -> Message<'m> {
    Message {
        id: "1",
        event_type: signalbox::protocol::EventType::parse("count.panic").expect("a type"),
        sender: user,
        to: None,
        payload: payload.into(),
        timestamp: SystemTime::now(),
        trace: None,
        seen: None,
    }
}

fn versions(counting: &Counting) -> Vec<VersionView> {
    let view = counting.manager.view_of("counter");
    view.expect("it is configured").versions
}

async fn until_live(counting: &Counting, stamp: &str) {
    let hash = signalbox::plugin::Sha256::of(&counter(stamp));
    until("the version is live", async || {
        (*live(&counting.manager, "counter").hash() == hash).then_some(())
    })
    .await;
}

/// Waits until messages are held, so a handover is in progress.
async fn until_held(counting: &Counting) {
    while counting.manager.enter().now_or_never().is_some() {
        tokio::task::yield_now().await;
    }
}

/// Makes the live version count until `done`, one message after another, starting at `count`.
async fn count_until(counting: &Counting, done: &AtomicBool, mut count: u64) -> u64 {
    while !done.load(Ordering::Relaxed) {
        count += 1;
        assert_eq!(counting.count().await, count);
        // Leaves CPU time to the work that it waits for.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_version_continues_with_the_state_of_the_failed_one() {
    let counting = trapping("1", "2", PATIENCE).await;
    assert_eq!(counting.count().await, 1, "each trap cost the memory");
    counting.manager.set_probation(strict());
    until_live(&counting, "1").await;
    assert_eq!(counting.count().await, 2);
    let shown = versions(&counting);
    assert_eq!((shown[0].state, shown[1].state), ("live", "rolled_back"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_the_failed_version_hands_nothing_over_the_previous_one_starts_empty() {
    for (first, second) in [("1", "save-refus"), ("restore-no", "2")] {
        let counting = trapping(first, second, PATIENCE).await;
        assert_eq!(counting.count().await, 1);
        assert_eq!(counting.count().await, 2);
        counting.manager.set_probation(strict());
        until_live(&counting, first).await;
        assert_eq!(counting.count().await, 1, "{first} after {second}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_during_its_handover_is_replaced_and_not_rolled_back() {
    let counting = trapping("1", "2", Duration::from_millis(100)).await;
    assert_eq!(counting.count().await, 1);
    let (done, manager) = (AtomicBool::new(false), counting.manager.clone());
    let swap = async {
        let refusal = counting.swap(&counter("restore-sl"), Trigger::Signal).await;
        done.store(true, Ordering::Relaxed);
        refusal
    };
    let verdict = async {
        until_held(&counting).await;
        manager.set_probation(strict());
        until("it is judged", async || {
            (versions(&counting)[0].state != "probation").then_some(())
        })
        .await;
        assert!(!done.load(Ordering::Relaxed), "it was judged too late");
        counting.open().await;
    };
    // Starts only once messages are held: compiling may take any time, and successful calls meanwhile would count in
    // favour of the version on probation.
    let counted = async {
        until_held(&counting).await;
        count_until(&counting, &done, 1).await
    };
    let (refusal, (), count) = tokio::join!(swap, verdict, counted);
    assert_eq!(refusal, None);
    until_live(&counting, "restore-sl").await;
    assert_eq!(counting.count().await, count + 1);
    // Nothing goes back to it by accident.
    until("it is known to be bad", async || {
        let shown = versions(&counting);
        let bad = shown
            .iter()
            .find(|version| version.trigger == "signal" && version.until.is_some());
        let because = bad.and_then(|bad| bad.rolled_back_because.as_deref());
        because
            .is_some_and(|why| why.contains("trapped"))
            .then_some(())
    })
    .await;
    let states: Vec<_> = versions(&counting)
        .iter()
        .map(|version| version.state)
        .collect();
    assert_eq!(states[1..], ["rolled_back", "retired"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_was_admitted_meanwhile_gets_the_state_of_the_one_that_came_back() {
    let counting = trapping("1", "2", PATIENCE).await;
    assert_eq!(counting.count().await, 1);
    let done = AtomicBool::new(false);
    let first = signalbox::plugin::Sha256::of(&counter("1"));
    let swap = async {
        let refusal = counting.swap(&counter("init-slow"), Trigger::Signal).await;
        done.store(true, Ordering::Relaxed);
        refusal
    };
    let verdict = async {
        counting.manager.set_probation(strict());
        until("the first version is back", async || {
            let back = *live(&counting.manager, "counter").hash() == first;
            back.then_some(())
        })
        .await;
        assert!(!done.load(Ordering::Relaxed), "it came back too late");
        counting.open().await;
    };
    let (refusal, (), count) = tokio::join!(swap, verdict, count_until(&counting, &done, 1));
    assert_eq!(refusal, None);
    until_live(&counting, "init-slow").await;
    assert_eq!(counting.count().await, count + 1);
}

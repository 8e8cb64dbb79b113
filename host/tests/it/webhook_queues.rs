//! The contract of the queues of webhooks, for every backend.

use std::{any::Any, sync::Arc, time::Duration};

use signalbox::{
    redis_client::{Commands, Endpoints},
    webhooks::{
        BatchClaim, EventBatch, EventQueue, MemoryQueue, NextEvents, OccupancyChange, QueueAddress,
        QueueState, QueuedEvent, RedisQueue,
    },
};

use crate::redis::{Cluster, Server, config, until};

/// Two handles to the same queues, as on two nodes, and the backend that must outlive them.
struct Queues {
    one: Arc<dyn EventQueue>,
    other: Arc<dyn EventQueue>,
    _backend: Box<dyn Any>,
}

async fn memory() -> Queues {
    let queue = Arc::new(MemoryQueue::default());
    Queues {
        one: queue.clone(),
        other: queue,
        _backend: Box::new(()),
    }
}

async fn redis() -> Queues {
    let server = Server::start().await;
    Queues {
        one: redis_queue(&server.url()).await,
        other: redis_queue(&server.url()).await,
        _backend: Box::new(server),
    }
}

async fn cluster() -> Queues {
    let cluster = Cluster::start().await;
    Queues {
        one: redis_queue(&cluster.urls()).await,
        other: redis_queue(&cluster.urls()).await,
        _backend: Box::new(cluster),
    }
}

async fn redis_queue(urls: &str) -> Arc<dyn EventQueue> {
    let config = config(urls, "test:", Duration::from_secs(10));
    let endpoints = Endpoints::new(&config).expect("valid addresses");
    let queue = RedisQueue::new(Commands::start(endpoints, &Arc::default()), "test:");
    until("the queue is connected", async || {
        queue.reported(0).await.ok()
    })
    .await;
    Arc::new(queue)
}

fn event(text: &str, queues: &[&str]) -> QueuedEvent {
    let address = |queue: &&str| QueueAddress {
        queue: (*queue).into(),
        length_max: 5,
    };
    QueuedEvent {
        text: text.to_owned(),
        queues: queues.iter().map(address).collect(),
        change: None,
    }
}

fn came(name: &str) -> QueuedEvent {
    QueuedEvent {
        change: Some(OccupancyChange::Came(name.to_owned())),
        ..event(&format!("{name} came"), &["a"])
    }
}

fn went(name: &str) -> QueuedEvent {
    QueuedEvent {
        change: Some(OccupancyChange::Went(name.to_owned())),
        ..event(&format!("{name} went"), &["a"])
    }
}

async fn push(queue: &Arc<dyn EventQueue>, events: &[QueuedEvent]) -> Vec<bool> {
    queue.push(events).await.expect("the queue answers").added
}

/// A claim of at most three events that do not wait for others.
fn claim<'a>(queue: &'a str, sender: &'a str, batch_id: &'a str) -> BatchClaim<'a> {
    BatchClaim {
        queue,
        sender,
        batch_max: 3,
        batch_time: Duration::ZERO,
        batch_id,
    }
}

async fn state(queue: &Arc<dyn EventQueue>, claim: BatchClaim<'_>) -> QueueState {
    queue.claim(claim).await.expect("the queue answers")
}

async fn next(queue: &Arc<dyn EventQueue>, claim: BatchClaim<'_>) -> NextEvents {
    state(queue, claim).await.next
}

fn batch(id: &str, events: &[&str]) -> NextEvents {
    NextEvents::Batch(EventBatch {
        id: id.to_owned(),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
    })
}

async fn events_leave_a_queue_in_their_order_once_they_were_sent(
    Queues {
        one,
        other,
        _backend,
    }: Queues,
) {
    for text in ["1", "2", "3", "4"] {
        push(&one, &[event(text, &["a"])]).await;
    }
    assert_eq!(
        next(&one, claim("a", "x", "b1")).await,
        batch("b1", &["1", "2", "3"])
    );
    // Again, because it was not finished; new events do not change it.
    push(&other, &[event("5", &["a"])]).await;
    assert_eq!(
        next(&one, claim("a", "x", "b2")).await,
        batch("b1", &["1", "2", "3"])
    );
    one.finish("a", "b1").await.unwrap();
    one.finish("a", "b1").await.unwrap();
    let now = state(&one, claim("a", "x", "b3")).await;
    assert_eq!((now.length, now.next), (2, batch("b3", &["4", "5"])));
    one.finish("a", "another").await.unwrap();
    one.finish("a", "b3").await.unwrap();
    let now = state(&one, claim("a", "x", "b4")).await;
    assert_eq!((now.length, now.next), (0, NextEvents::None));
}

async fn one_sender_sends_at_a_time_and_another_one_sends_the_same_batch_after_it(
    Queues {
        one,
        other,
        _backend,
    }: Queues,
) {
    push(&one, &[event("1", &["a"]), event("2", &["a", "b"])]).await;
    assert_eq!(
        next(&one, claim("a", "x", "b1")).await,
        batch("b1", &["1", "2"])
    );
    let NextEvents::OfAnother(time) = next(&other, claim("a", "y", "b2")).await else {
        panic!("it belongs to another");
    };
    assert!(time <= Duration::from_secs(15));
    assert_eq!(
        next(&other, claim("b", "y", "b3")).await,
        batch("b3", &["2"])
    );
    assert_eq!(one.renew("a", "x").await, Ok(true));
    assert_eq!(other.renew("a", "y").await, Ok(false));
    other.release("a", "y").await.unwrap();
    assert!(matches!(
        next(&other, claim("a", "y", "b2")).await,
        NextEvents::OfAnother(_)
    ));
    one.release("a", "x").await.unwrap();
    assert_eq!(one.renew("a", "x").await, Ok(false));
    assert_eq!(
        next(&other, claim("a", "y", "b2")).await,
        batch("b1", &["1", "2"])
    );
    // The sender of the batch may finish it.
    one.finish("a", "b1").await.unwrap();
    assert_eq!(next(&other, claim("a", "y", "b4")).await, NextEvents::None);
    // Nobody has the right to send when there is nothing.
    push(&one, &[event("3", &["a"])]).await;
    assert_eq!(next(&one, claim("a", "x", "b5")).await, batch("b5", &["3"]));
}

#[tokio::test]
async fn a_claim_from_before_the_clock_of_redis_was_set_back_does_not_block_senders() {
    let server = Server::start().await;
    let queue = redis_queue(&server.url()).await;
    push(&queue, &[event("1", &["a"])]).await;
    let expected = batch("b1", &["1"]);
    assert_eq!(next(&queue, claim("a", "s1", "b1")).await, expected);
    let other = next(&queue, claim("a", "s2", "b2")).await;
    assert!(matches!(other, NextEvents::OfAnother(_)), "{other:?}");
    let keys: Vec<String> = server.command(&["KEYS", "*sender*"]).await;
    let [key] = keys.as_slice() else {
        panic!("one sender: {keys:?}")
    };
    let _: () = server.command(&["PEXPIRE", key, "3600000"]).await;
    assert_eq!(next(&queue, claim("a", "s2", "b2")).await, expected);
}

async fn an_event_waits_for_others_until_there_are_enough(Queues { one, _backend, .. }: Queues) {
    let patient = BatchClaim {
        batch_time: Duration::from_secs(3_600),
        ..claim("a", "x", "b1")
    };
    push(&one, &[event("1", &["a"]), event("2", &["a"])]).await;
    let NextEvents::Later(time) = next(&one, patient).await else {
        panic!("there are too few");
    };
    assert!(time <= Duration::from_secs(3_600) && time > Duration::from_secs(1_800));
    push(&one, &[event("3", &["a"])]).await;
    assert_eq!(next(&one, patient).await, batch("b1", &["1", "2", "3"]));
    one.finish("a", "b1").await.unwrap();
    push(&one, &[event("4", &["a"])]).await;
    let soon = BatchClaim {
        batch_time: Duration::from_millis(20),
        ..claim("a", "x", "b2")
    };
    until("it has waited long enough", async || {
        (next(&one, soon).await == batch("b2", &["4"])).then_some(())
    })
    .await;
}

async fn the_oldest_events_are_dropped_even_if_they_are_being_sent(
    Queues { one, _backend, .. }: Queues,
) {
    let numbered: Vec<QueuedEvent> = (1..=4).map(|n| event(&n.to_string(), &["a"])).collect();
    let pushed = one.push(&numbered).await.unwrap();
    assert_eq!((pushed.queues[0].dropped, pushed.queues[0].length), (0, 4));
    assert_eq!(
        next(&one, claim("a", "x", "b1")).await,
        batch("b1", &["1", "2", "3"])
    );
    let more = [
        event("5", &["a"]),
        event("6", &["a", "b"]),
        event("7", &["a"]),
    ];
    let pushed = one.push(&more).await.unwrap();
    let counts: Vec<_> = pushed
        .queues
        .iter()
        .map(|queue| (&*queue.queue, queue.dropped, queue.length))
        .collect();
    assert_eq!(counts, [("a", 2, 5), ("b", 0, 1)]);
    assert_eq!(next(&one, claim("a", "x", "b2")).await, batch("b1", &["3"]));
    one.finish("a", "b1").await.unwrap();
    assert_eq!(
        next(&one, claim("a", "x", "b3")).await,
        batch("b3", &["4", "5", "6"])
    );
    // All of a batch may be dropped.
    let many: Vec<QueuedEvent> = (11..=15).map(|n| event(&n.to_string(), &["a"])).collect();
    one.push(&many).await.unwrap();
    assert_eq!(
        next(&one, claim("a", "x", "b4")).await,
        batch("b4", &["11", "12", "13"])
    );
}

async fn a_batch_of_large_events_is_smaller(Queues { one, _backend, .. }: Queues) {
    let large = "x".repeat(600 << 10);
    let events = [
        event(&large, &["a"]),
        event(&large, &["a"]),
        event("1", &["a"]),
    ];
    push(&one, &events).await;
    assert_eq!(
        next(&one, claim("a", "x", "b1")).await,
        batch("b1", &[&large])
    );
    one.finish("a", "b1").await.unwrap();
    assert_eq!(
        next(&one, claim("a", "x", "b2")).await,
        batch("b2", &[&large, "1"])
    );
}

async fn a_change_is_reported_once_by_all_nodes_together(
    Queues {
        one,
        other,
        _backend,
    }: Queues,
) {
    assert_eq!(
        push(&one, &[went("r"), came("r"), came("s")]).await,
        [false, true, true]
    );
    assert_eq!(
        push(&other, &[came("r"), went("s"), event("1", &[])]).await,
        [false, true, true]
    );
    let all = BatchClaim {
        batch_max: 9,
        ..claim("a", "x", "b1")
    };
    assert_eq!(
        next(&one, all).await,
        batch("b1", &["r came", "s came", "s went"])
    );
    let names = async |queue: &Arc<dyn EventQueue>| {
        let (mut names, mut cursor) = (Vec::new(), 0);
        loop {
            let page = queue.reported(cursor).await.unwrap();
            names.extend(page.names);
            cursor = page.next;
            if cursor == 0 {
                return names;
            }
        }
    };
    assert_eq!(names(&other).await, ["r"]);
    // Also if no queue gets an event about it.
    let quiet = |change| QueuedEvent {
        change: Some(change),
        ..event("", &[])
    };
    let many = (0..1_000).map(|n| quiet(OccupancyChange::Came(format!("n{n}"))));
    push(&one, &many.collect::<Vec<_>>()).await;
    assert_eq!(names(&other).await.len(), 1_001);
    assert_eq!(
        push(&one, &[quiet(OccupancyChange::Went("n7".to_owned()))]).await,
        [true]
    );
    assert_eq!(names(&other).await.len(), 1_000);
}

macro_rules! passes_the_contract {
    ($queue:ident: $($requirement:ident)*) => {
        mod $queue {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $requirement() {
                    super::$requirement(super::$queue().await).await;
                }
            )*
        }
    };
    ($($queue:ident)*) => {
        $(passes_the_contract! { $queue:
            events_leave_a_queue_in_their_order_once_they_were_sent
            one_sender_sends_at_a_time_and_another_one_sends_the_same_batch_after_it
            an_event_waits_for_others_until_there_are_enough
            the_oldest_events_are_dropped_even_if_they_are_being_sent
            a_batch_of_large_events_is_smaller
            a_change_is_reported_once_by_all_nodes_together
        })*
    };
}

passes_the_contract! { memory redis cluster }

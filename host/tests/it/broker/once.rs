//! Messages that are handled once: a part of the contract of a broker.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use signalbox::broker::{FINGERPRINT_BYTES, OnceClaim, OnceKey, OnceSettlement, OnceState};

use super::nodes::{Cluster, Node, redis_nodes};
use crate::redis::{Server, until};

const HOUR: Duration = Duration::from_secs(3600);

fn claim(key: OnceKey, content: char, nonce: &str) -> OnceClaim {
    OnceClaim {
        key,
        fingerprint: String::from(content).repeat(FINGERPRINT_BYTES),
        nonce: nonce.to_owned(),
    }
}

fn of_ann(id: &str, nonce: &str) -> OnceClaim {
    claim(OnceKey::of_user("ann", id), 'a', nonce)
}

async fn begin(node: &Node, claim: &OnceClaim) -> OnceState {
    node.broker.begin_once(claim).await.unwrap()
}

async fn settle(node: &Node, claim: &OnceClaim, settlement: OnceSettlement<'_>) -> bool {
    node.broker.settle_once(claim, settlement).await.unwrap()
}

fn keep(answer: &str, time: Duration) -> OnceSettlement<'_> {
    OnceSettlement::Keep { answer, time }
}

pub(super) async fn one_of_many_that_want_to_handle_a_message_does(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    for round in 0..20 {
        let wanted = (0..9).map(async |number: usize| {
            let claim = of_ann(&round.to_string(), &number.to_string());
            begin(&nodes[number % 3], &claim).await
        });
        let states = join_all(wanted).await;
        let claimed = states.iter().filter(|state| **state == OnceState::Claimed);
        assert_eq!(claimed.count(), 1, "{states:?}");
        let waiting = states
            .iter()
            .filter(|state| **state == OnceState::InProgress);
        assert_eq!(waiting.count(), 8, "{states:?}");
    }
}

pub(super) async fn an_answer_is_repeated_by_all_nodes_until_it_is_forgotten(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let (first, again) = (of_ann("1", "one"), of_ann("1", "two"));
    assert_eq!(begin(&nodes[0], &first).await, OnceState::Claimed);
    assert!(settle(&nodes[0], &first, OnceSettlement::Renew).await);
    assert_eq!(begin(&nodes[1], &again).await, OnceState::InProgress);
    let answer = "{\"a\":\"ä \\n= 😀\"}";
    assert!(settle(&nodes[0], &first, keep(answer, HOUR)).await);
    for node in &nodes {
        let state = begin(node, &again).await;
        assert_eq!(state, OnceState::Answered(answer.to_owned()));
    }
    // An answer is not claimed any more.
    for settlement in [
        OnceSettlement::Renew,
        OnceSettlement::Release,
        keep("x", HOUR),
    ] {
        assert!(!settle(&nodes[0], &first, settlement).await);
    }
    let short = of_ann("2", "three");
    assert_eq!(begin(&nodes[0], &short).await, OnceState::Claimed);
    assert!(settle(&nodes[0], &short, keep("x", Duration::from_millis(50))).await);
    until("the answer is forgotten", async || {
        let state = begin(&nodes[1], &of_ann("2", "four")).await;
        (state == OnceState::Claimed).then_some(())
    })
    .await;
}

pub(super) async fn a_message_that_was_not_handled_can_be_claimed_again(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let (first, again) = (of_ann("1", "one"), of_ann("1", "two"));
    assert_eq!(begin(&nodes[0], &first).await, OnceState::Claimed);
    // Only its owner settles a claim.
    assert!(!settle(&nodes[1], &again, OnceSettlement::Release).await);
    assert!(settle(&nodes[0], &first, OnceSettlement::Release).await);
    assert!(!settle(&nodes[0], &first, keep("x", HOUR)).await);
    assert_eq!(begin(&nodes[1], &again).await, OnceState::Claimed);
}

pub(super) async fn messages_with_the_same_key_and_other_content_are_noticed(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let first = of_ann("1", "one");
    let other = claim(first.key.clone(), 'b', "two");
    assert_eq!(begin(&nodes[0], &first).await, OnceState::Claimed);
    assert_eq!(begin(&nodes[1], &other).await, OnceState::Mismatch);
    assert!(settle(&nodes[0], &first, keep("x", HOUR)).await);
    assert_eq!(begin(&nodes[1], &other).await, OnceState::Mismatch);
    for key in [
        OnceKey::of_user("ann", "1:"),
        OnceKey::of_user("bob", "1"),
        OnceKey::of_user("{a}\r\nb:\0", "😀 1"),
        OnceKey::of_backend("ann", "1"),
    ] {
        let claim = claim(key, 'c', "three");
        assert_eq!(begin(&nodes[1], &claim).await, OnceState::Claimed);
    }
}

#[tokio::test]
async fn a_claim_in_redis_ends_by_itself_and_an_answer_when_it_should() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let first = of_ann("1", "one");
    const KEY: &str = "once:user:3:ann:1";
    assert_eq!(begin(&nodes[0], &first).await, OnceState::Claimed);
    let left = async || -> i64 { server.command(&["PTTL", KEY]).await };
    assert!((1..=10_000).contains(&left().await));
    let _: u64 = server.command(&["PEXPIRE", KEY, "5000"]).await;
    assert!(settle(&nodes[0], &first, OnceSettlement::Renew).await);
    assert!((5_001..=10_000).contains(&left().await));
    assert!(settle(&nodes[0], &first, keep("x", HOUR)).await);
    assert!((1_800_000..=3_600_000).contains(&left().await));
    // A text that no node wrote leaves it unknown whether the message was handled.
    let _: () = server.command(&["SET", KEY, "foreign"]).await;
    assert!(nodes[0].broker.begin_once(&first).await.is_err());
}

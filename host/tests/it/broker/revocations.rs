//! Revocations: a part of the contract of a broker.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use signalbox::broker::{Denial, Revocation, Revoked, TokenMark};

use super::nodes::{Cluster, Node};
use crate::redis::until;

const HOUR: Duration = Duration::from_secs(3600);

/// A revocation that lasts for an hour.
pub(super) fn lasting(of: Revoked) -> Revocation {
    let end = SystemTime::now() + HOUR;
    let since_1970 = end.duration_since(UNIX_EPOCH).unwrap();
    Revocation {
        of,
        until_ms: u64::try_from(since_1970.as_millis()).unwrap(),
    }
}

pub(super) fn token(id: &str) -> Revoked {
    Revoked::Token(id.to_owned())
}

pub(super) fn check(node: &Node, user: &str, id: &str, now: SystemTime) -> Result<(), Denial> {
    let mark = TokenMark::new(Some(id), Some(UNIX_EPOCH + HOUR));
    node.broker.revocations().check(user, mark, now)
}

pub(super) async fn until_enforced(node: &Node, count: usize) -> Vec<Revoked> {
    until("revocations are enforced", async || {
        let enforced = node.recorder.enforced.lock().unwrap().clone();
        (enforced.len() >= count).then_some(enforced)
    })
    .await
}

pub(super) async fn a_revocation_is_enforced_once_by_every_node_until_its_end(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let now = SystemTime::now();
    let old_tokens = Revoked::TokensOf {
        user: "ann".to_owned(),
        issued_before_ms: 2 * 3_600_000,
    };
    let all = [token("a"), old_tokens, Revoked::User("bob".to_owned())];
    for of in &all {
        let revocation = lasting(of.clone());
        for node in &nodes[..2] {
            node.broker.revoke(&revocation).await.unwrap();
        }
    }
    for node in &nodes {
        let enforced = until_enforced(node, all.len()).await;
        assert_eq!(enforced.len(), all.len());
        assert!(all.iter().all(|of| enforced.contains(of)), "{enforced:?}");
        for (user, id, denial) in [
            ("cid", "a", Some(Denial::Token)),
            ("ann", "b", Some(Denial::Token)),
            ("bob", "b", Some(Denial::User)),
            ("cid", "b", None),
        ] {
            assert_eq!(check(node, user, id, now).err(), denial, "{user} {id}");
            assert_eq!(check(node, user, id, now + 2 * HOUR), Ok(()));
        }
    }
}

pub(super) async fn revocations_of_different_names_are_different(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let names = [
        "a",
        "a ",
        "A",
        "\"",
        "\\",
        "a\nb",
        "\0",
        "ä€😀",
        "{\"token\":\"a\"}",
    ];
    let mut all = HashSet::new();
    for name in names {
        for of in [token(name), Revoked::User(name.to_owned())] {
            nodes[0].broker.revoke(&lasting(of.clone())).await.unwrap();
            all.insert(of);
        }
    }
    let enforced = until_enforced(&nodes[1], all.len()).await;
    assert_eq!(enforced.len(), all.len());
    assert_eq!(enforced.into_iter().collect::<HashSet<_>>(), all);
    assert_eq!(check(&nodes[1], "b", "b", SystemTime::now()), Ok(()));
}

//! Histories of rooms and users: a part of the contract of a broker.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures_util::future::join_all;
use signalbox::{
    broker::{HistoryName, HistoryPage, HistoryQuery, Retention, Target},
    protocol::{Epoch, Position},
};

use super::nodes::{Cluster, Node, RETENTION, frame, offset_in, text_in};
use crate::redis::until;

pub(super) const ALL: HistoryQuery = HistoryQuery {
    after: 0,
    before: None,
    limit: usize::MAX,
};

/// The numbers and texts of a page.
pub(super) fn messages(page: &HistoryPage) -> Vec<(u64, String)> {
    let message = |message: &signalbox::broker::KeptMessage| {
        assert_eq!(offset_in(&message.frame), message.offset);
        (message.offset, text_in(&message.frame))
    };
    page.messages.iter().map(message).collect()
}

/// The numbers of the messages that answer `query`.
async fn numbers(node: &Node, query: HistoryQuery) -> Vec<u64> {
    let page = node.read("r", query).await;
    page.messages.iter().map(|message| message.offset).collect()
}

/// Waits until as many messages of the history of the room `r` have arrived, and returns them.
async fn until_kept(node: &Node, count: usize) -> Vec<(u64, String)> {
    until("the messages of the history arrive", async || {
        let kept = node.kept("r");
        (kept.len() >= count).then_some(kept)
    })
    .await
}

pub(super) async fn messages_are_numbered_from_one_and_reach_all_nodes_that_hold_the_room(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    nodes[0].join("r").await;
    nodes[1].join("r").await;
    let one = nodes[0].append("r", "one").await;
    assert_eq!((one.connections, one.nodes), (1, 1));
    assert_eq!(one.position.offset, 1);
    let two = nodes[2].append("r", "two").await;
    assert_eq!((two.connections, two.nodes), (0, 2));
    assert_eq!(
        (&two.position.epoch, two.position.offset),
        (&one.position.epoch, 2)
    );
    let expected = [(1, "one".to_owned()), (2, "two".to_owned())];
    for node in &nodes[..2] {
        let mut kept = until_kept(node, 2).await;
        kept.sort();
        assert_eq!(kept, expected);
    }
    assert_eq!(nodes[2].kept("r"), [], "it does not hold the room");
    assert_eq!(messages(&nodes[2].read("r", ALL).await), expected);
}

pub(super) async fn messages_of_a_users_history_reach_all_nodes_that_hold_the_user(
    make: impl AsyncFn(usize) -> Cluster,
) {
    const USER: HistoryName<'_> = HistoryName::User("r");
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    // A room of the same name is something else.
    nodes[2].join("r").await;
    let alone = nodes[0].append_to(USER, "one").await;
    assert_eq!((alone.connections, alone.nodes), (0, 0));
    nodes[0].connect("r").await;
    nodes[1].connect("r").await;
    let two = nodes[0].append_to(USER, "two").await;
    assert_eq!((two.connections, two.nodes), (1, 1));
    assert_eq!(nodes[2].append_to(USER, "three").await.nodes, 2);
    assert_eq!(nodes[2].append("r", "room").await.position.offset, 1);
    let expected = [(2, "two".to_owned()), (3, "three".to_owned())];
    for node in &nodes[..2] {
        until("the messages arrive", async || {
            let mut kept = node.kept_of(USER);
            kept.sort();
            (kept == expected).then_some(())
        })
        .await;
    }
    assert_eq!(nodes[2].kept_of(USER), []);
    assert_eq!(nodes[2].kept("r"), [(1, "room".to_owned())]);
    let page = nodes[1].read_from(USER, ALL).await;
    assert_eq!(messages(&page)[0], (1, "one".to_owned()));
    assert_eq!(messages(&page)[1..], expected);
    assert_eq!(
        page.position,
        Position {
            offset: 3,
            ..two.position
        }
    );
}

pub(super) async fn concurrent_senders_get_consecutive_numbers_that_are_the_same_everywhere(
    make: impl AsyncFn(usize) -> Cluster,
) {
    const EACH: usize = 50;
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    for node in &nodes {
        node.join("r").await;
    }
    let nodes = Arc::new(nodes);
    let senders = (0..nodes.len()).map(|sender| {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            let mut sent = Vec::new();
            for n in 0..EACH {
                let text = format!("{sender} {n}");
                let appended = nodes[sender].append("r", &text).await;
                sent.push((appended.position.offset, text));
            }
            sent
        })
    });
    let sent = join_all(senders).await.into_iter();
    let sent: BTreeMap<u64, String> = sent.flat_map(|sent| sent.unwrap()).collect();
    let count = EACH * nodes.len();
    assert!(sent.keys().copied().eq(1..=count as u64), "{sent:?}");
    for node in nodes.iter() {
        let kept = until_kept(node, count).await;
        assert_eq!(kept.into_iter().collect::<BTreeMap<_, _>>(), sent);
        let page = node.read("r", ALL).await;
        assert_eq!(
            messages(&page),
            sent.clone().into_iter().collect::<Vec<_>>()
        );
    }
}

pub(super) async fn a_query_gets_the_newest_messages_between_its_bounds(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(1).await;
    for n in 1..=6 {
        nodes[0].append("r", &n.to_string()).await;
    }
    for (after, before, limit, expected) in [
        (0, None, 9, vec![1, 2, 3, 4, 5, 6]),
        (0, None, 2, vec![5, 6]),
        (4, None, 9, vec![5, 6]),
        (4, None, 1, vec![6]),
        (6, None, 9, vec![]),
        (9, None, 9, vec![]),
        (0, Some(4), 9, vec![1, 2, 3]),
        (0, Some(4), 2, vec![2, 3]),
        (1, Some(4), 9, vec![2, 3]),
        (3, Some(4), 9, vec![]),
        (0, Some(1), 9, vec![]),
        (0, Some(0), 9, vec![]),
        (0, Some(99), 1, vec![6]),
        (0, None, 0, vec![]),
    ] {
        let query = HistoryQuery {
            after,
            before,
            limit,
        };
        assert_eq!(numbers(&nodes[0], query).await, expected, "{query:?}");
    }
}

pub(super) async fn concurrent_readers_each_get_their_page(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(1).await;
    for n in 1..=20_u64 {
        nodes[0].append("r", &n.to_string()).await;
    }
    let reads = (0..200_u64).map(async |n| {
        let after = n % 20;
        let before = (n % 3 == 0).then_some(15);
        let limit = (n % 7) as usize;
        let query = HistoryQuery {
            after,
            before,
            limit,
        };
        let all: Vec<u64> = (after + 1..before.unwrap_or(21)).collect();
        let expected = &all[all.len().saturating_sub(limit)..];
        assert_eq!(numbers(&nodes[0], query).await, expected, "{query:?}");
    });
    join_all(reads).await;
}

pub(super) async fn only_as_many_messages_are_kept_as_the_history_has_room_for(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(1).await;
    let small = Retention {
        size: 3,
        ..RETENTION
    };
    for n in 1..=8 {
        let frame = frame(Target::Room("r"), &n.to_string());
        let room = HistoryName::Room("r");
        let appended = nodes[0].broker.append(room, &frame, small, None, None);
        assert_eq!(appended.await.unwrap().position.offset, n);
    }
    assert_eq!(numbers(&nodes[0], ALL).await, [6, 7, 8]);
    let query = HistoryQuery { after: 4, ..ALL };
    assert_eq!(numbers(&nodes[0], query).await, [6, 7, 8], "5 is missing");
}

pub(super) async fn a_history_that_does_not_exist_is_created_and_keeps_its_epoch(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    assert_eq!(nodes[0].positions(&["r"]).await, [None]);
    let page = nodes[0].read("r", ALL).await;
    assert_eq!((page.position.offset, page.messages.len()), (0, 0));
    assert_eq!(
        nodes[1].positions(&["r"]).await,
        [Some(page.position.clone())]
    );
    assert_eq!(nodes[1].read("r", ALL).await, page);
    let appended = nodes[1].append("r", "x").await;
    let first = Position {
        offset: 1,
        ..page.position
    };
    assert_eq!(appended.position, first);
    assert_eq!(nodes[0].read("r", ALL).await.position, first);
}

pub(super) async fn looking_for_a_history_that_does_not_exist_creates_none(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    for name in [HistoryName::Room("r"), HistoryName::User("u")] {
        for before in [None, Some(7)] {
            let query = HistoryQuery { before, ..ALL };
            assert_eq!(nodes[0].find(name, query).await, None);
        }
    }
    assert_eq!(nodes[1].positions(&["r"]).await, [None]);
    // A reader that follows the history creates it, and its place stays valid.
    let page = nodes[0].read("r", ALL).await;
    let room = HistoryName::Room("r");
    assert_eq!(nodes[1].find(room, ALL).await, Some(page.clone()));
    let appended = nodes[1].append("r", "x").await.position;
    assert_eq!(
        (&appended.epoch, appended.offset),
        (&page.position.epoch, 1)
    );
    let found = nodes[0].find(room, ALL).await.expect("it exists");
    assert_eq!(found, nodes[1].read("r", ALL).await);
    assert_eq!(messages(&found), [(1, "x".to_owned())]);
    // Of concurrent readers one that follows it is enough.
    let (page, _) = tokio::join!(
        nodes[0].read("q", ALL),
        nodes[0].find(HistoryName::Room("q"), ALL)
    );
    assert_eq!(nodes[0].positions(&["q"]).await, [Some(page.position)]);
}

pub(super) async fn a_history_that_is_reset_begins_another_epoch(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let reset = async |room: &str, epoch: &Epoch| {
        let room = HistoryName::Room(room);
        let reset = nodes[1].broker.reset_history(room, epoch, RETENTION);
        reset.await.unwrap();
    };
    nodes[0].append("r", "one").await;
    let old = nodes[0].append("r", "two").await.position;
    reset("r", &old.epoch).await;
    let page = nodes[0].read("r", ALL).await;
    assert_ne!(page.position.epoch, old.epoch);
    assert_eq!((page.position.offset, page.messages.len()), (0, 0));
    let new = nodes[0].append("r", "three").await.position;
    assert_eq!((&new.epoch, new.offset), (&page.position.epoch, 1));
    // Another node may notice the same loss later.
    reset("r", &old.epoch).await;
    let page = nodes[0].read("r", ALL).await;
    assert_eq!(page.position, new);
    assert_eq!(messages(&page), [(1, "three".to_owned())]);
    reset("none", &old.epoch).await;
    assert_eq!(nodes[0].positions(&["none"]).await, [None]);
}

pub(super) async fn positions_come_in_the_order_of_the_rooms(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(1).await;
    let names: Vec<String> = (0..600).map(|n| format!("r{n}")).collect();
    let mut expected = vec![None; names.len()];
    for n in [0, 255, 256, 599] {
        for _ in 0..=n % 3 {
            expected[n] = Some(nodes[0].append(&names[n], "x").await.position);
        }
    }
    let rooms: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(nodes[0].positions(&rooms).await, expected);
    assert_eq!(nodes[0].positions(&[]).await, []);
}

pub(super) async fn histories_of_rooms_with_any_names_are_independent(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let long = format!("{}abc", "😀".repeat(63));
    let rooms = [
        "a",
        "}",
        "}}",
        "{",
        "{}",
        "}{",
        "{a}",
        "a}",
        "a}b{",
        "%",
        "%7D",
        "%25",
        "%257D",
        "}:log",
        "a}:head",
        "a:b",
        "a b",
        "a\nb",
        "a\r\nDEL x\r\n",
        "*",
        "[a]",
        "ä€😀",
        "\0",
        &long,
    ];
    let mut epochs = HashSet::new();
    for room in rooms {
        nodes[1].join(room).await;
        let position = nodes[0].append(room, room).await.position;
        assert_eq!(position.offset, 1, "{room:?}");
        assert!(epochs.insert(position.epoch), "{room:?}");
    }
    for room in rooms {
        let expected = [(1, room.to_owned())];
        assert_eq!(messages(&nodes[1].read(room, ALL).await), expected);
        until("the message arrives", async || {
            (nodes[1].kept(room) == expected).then_some(())
        })
        .await;
    }
    let found = nodes[0].positions(&rooms).await;
    let found: HashSet<Epoch> = found.into_iter().map(|at| at.unwrap().epoch).collect();
    assert_eq!(found, epochs);
}

//! The contract of a broker: the test suite that every implementation passes. To add a broker, add one line at the end
//! and a function that creates a cluster of it.

mod clocks_redis;
mod history;
mod history_redis;
mod members;
mod members_redis;
mod nodes;
mod once;
mod order;
mod posts;
mod revocations;
mod revocations_redis;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use signalbox::{
    broker::{LocalNode as _, Target, UserAnswer, UserRequest},
    protocol::CloseCode,
};

use self::{
    history::{
        a_history_that_does_not_exist_is_created_and_keeps_its_epoch,
        a_history_that_is_reset_begins_another_epoch,
        a_query_gets_the_newest_messages_between_its_bounds,
        concurrent_readers_each_get_their_page,
        concurrent_senders_get_consecutive_numbers_that_are_the_same_everywhere,
        histories_of_rooms_with_any_names_are_independent,
        looking_for_a_history_that_does_not_exist_creates_none,
        messages_are_numbered_from_one_and_reach_all_nodes_that_hold_the_room,
        messages_of_a_users_history_reach_all_nodes_that_hold_the_user,
        only_as_many_messages_are_kept_as_the_history_has_room_for,
        positions_come_in_the_order_of_the_rooms,
    },
    members::{
        a_node_that_leaves_takes_its_members_along, all_nodes_learn_that_members_changed,
        local_and_remote_rooms_and_members_are_distinguished,
        members_of_rooms_and_users_with_strange_names_are_distinguished,
        the_members_of_a_room_are_the_users_of_all_nodes, users_on_other_nodes_are_counted,
    },
    nodes::{Cluster, Node, Reached, memory_cluster, redis_cluster, redis_server},
    once::{
        a_message_that_was_not_handled_can_be_claimed_again,
        an_answer_is_repeated_by_all_nodes_until_it_is_forgotten,
        messages_with_the_same_key_and_other_content_are_noticed,
        one_of_many_that_want_to_handle_a_message_does,
    },
    posts::a_frame_is_given_to_the_connection_that_it_is_posted_to_on_any_node,
    revocations::{
        a_revocation_is_enforced_once_by_every_node_until_its_end,
        revocations_of_different_names_are_different,
    },
};
use crate::redis::until;

async fn a_user_is_reached_on_other_nodes_only(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    nodes[0].connect("u").await;
    nodes[1].connect("u").await;
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 1);
    nodes[1].expect("user u", &["x"]).await;
    assert_eq!(nodes[2].publish(Target::User("u"), "y").await, 2);
    nodes[0].expect("user u", &["y"]).await;
    nodes[1].expect("user u", &["x", "y"]).await;
}

async fn a_message_for_an_absent_user_or_an_empty_room_reaches_nobody(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    nodes[1].connect("u").await;
    nodes[1].disconnect("u").await;
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 0);
    assert_eq!(nodes[0].publish(Target::User("never"), "x").await, 0);
    assert_eq!(nodes[0].publish(Target::Room("never"), "x").await, 0);
}

async fn a_user_who_connects_is_reachable_at_once(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    for round in 0..20 {
        let user = format!("u{round}");
        assert_eq!(nodes[0].publish(Target::User(&user), "early").await, 0);
        nodes[1].connect(&user).await;
        assert_eq!(nodes[0].publish(Target::User(&user), "x").await, 1);
        nodes[1].expect(&format!("user {user}"), &["x"]).await;
    }
}

async fn a_room_is_published_once_for_each_node(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    nodes[1].join("r").await;
    nodes[1].join("r").await;
    nodes[2].join("r").await;
    assert_eq!(nodes[0].publish(Target::Room("r"), "x").await, 2);
    assert_eq!(nodes[0].publish(Target::Room("r"), "y").await, 2);
    nodes[1].expect("room r", &["x", "y"]).await;
    nodes[2].expect("room r", &["x", "y"]).await;
}

async fn everyone_is_every_other_node(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    nodes[0].publish(Target::Everyone, "x").await;
    nodes[2].expect("everyone", &["x"]).await;
    nodes[1].expect("everyone", &["x"]).await;
    nodes[1].publish(Target::Everyone, "y").await;
    // A node receives the broadcasts of others, but not the ones it sent.
    nodes[0].expect("everyone", &["y"]).await;
    nodes[2].expect("everyone", &["x", "y"]).await;
    assert_eq!(nodes[1].got("everyone"), ["x"]);
}

async fn frames_to_one_target_keep_their_order(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    nodes[1].connect("u").await;
    let sent: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for text in &sent {
        assert_eq!(nodes[0].publish(Target::User("u"), text).await, 1);
    }
    nodes[1].expect("user u", &sent).await;
}

async fn a_user_who_moves_gets_every_published_message_once_and_in_order(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes,
        log,
        _backend,
    } = make(4).await;
    let reached = Reached::default();
    nodes[1].connect("u").await;
    let moves = async {
        // To another node, and away and back to the same one. A message is forwarded to a user at most three times.
        for round in [[(1, 2), (2, 3)], [(3, 3), (3, 1)], [(1, 1), (1, 1)]].repeat(10) {
            for (from, to) in round {
                nodes[from].disconnect("u").await;
                nodes[to].connect("u").await;
            }
            until_all_arrived(&log, &reached).await;
        }
    };
    nodes[0].publish_until("u", &reached, moves).await;
    until_all_arrived(&log, &reached).await;
}

/// Waits until as many messages have arrived as reached somebody so far, and compares them.
async fn until_all_arrived(log: &Mutex<Vec<String>>, reached: &Reached) {
    let reached = reached.lock().await;
    until("everything has arrived", async || {
        (log.lock().unwrap().len() >= reached.len()).then_some(())
    })
    .await;
    assert_eq!(*log.lock().unwrap(), *reached);
}

async fn a_user_with_two_devices_gets_nothing_twice_on_either_while_one_moves(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(4).await;
    nodes[1].connect("u").await;
    nodes[2].connect("u").await;
    let moves = async {
        for (from, to) in [(2, 3), (3, 2)].repeat(20) {
            nodes[from].disconnect("u").await;
            nodes[to].connect("u").await;
        }
    };
    let reached = Reached::default();
    nodes[0].publish_until("u", &reached, moves).await;
    let reached = reached.into_inner();
    nodes[1].expect("user u", &reached).await;
    for node in &nodes[2..] {
        let got = node.got("user u");
        let numbers = got.iter().map(|text| text.parse::<u64>().unwrap());
        assert!(numbers.is_sorted_by(|a, b| a < b), "{got:?}");
    }
}

async fn a_node_that_leaves_loses_nothing_that_was_published(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes,
        log,
        _backend,
    } = make(3).await;
    nodes[1].connect("u").await;
    let leaves = async {
        for _ in 0..20 {
            nodes[1].connect("u").await;
        }
        nodes[1].disconnect("u").await;
        nodes[2].connect("u").await;
        nodes[1].broker.leave(Duration::from_secs(10)).await;
    };
    let reached = Reached::default();
    nodes[0].publish_until("u", &reached, leaves).await;
    until_all_arrived(&log, &reached).await;
}

async fn the_other_nodes_that_hold_a_user_are_asked_and_answer(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let strange = "u\"{}:\n\0ä";
    assert_eq!(nodes[0].ask("u", &UserRequest::Count).await, []);
    for node in &nodes[..2] {
        node.connect("u").await;
        node.connect(strange).await;
    }
    let two = || UserAnswer::Connections(2);
    assert_eq!(nodes[0].ask("u", &UserRequest::Count).await, [two()]);
    assert_eq!(nodes[2].ask("u", &UserRequest::Count).await, [two(), two()]);
    let disconnect = UserRequest::Disconnect {
        code: CloseCode::KICKED,
        reason: "\"enough\"".to_owned(),
    };
    assert_eq!(nodes[0].ask(strange, &disconnect).await, [two()]);
    let asked = nodes[1].asked();
    assert_eq!(asked.last(), Some(&(strange.to_owned(), disconnect)));
    assert_eq!(nodes[2].asked(), [], "it holds nobody");
    nodes[1].disconnect("u").await;
    assert_eq!(nodes[0].ask("u", &UserRequest::Count).await, []);
}

async fn a_node_lists_connections_and_closes_one_for_another(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    assert_eq!(nodes[0].ask("u", &UserRequest::List).await, []);
    nodes[1].connect("u").await;
    let list = UserAnswer::Listed(nodes[1].recorder.list("u"));
    assert_eq!(nodes[0].ask("u", &UserRequest::List).await, [list]);
    let one = UserRequest::DisconnectOne {
        connection: "c\"1".to_owned(),
        code: CloseCode::KICKED,
        reason: String::new(),
    };
    nodes[0].ask("u", &one).await;
    assert_eq!(nodes[1].asked().last(), Some(&("u".to_owned(), one)));
}

async fn a_node_changes_the_rooms_of_a_user_for_another(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let room = "r\"{}:\n\0ä".to_owned();
    let join = UserRequest::Join { room: room.clone() };
    assert_eq!(nodes[0].ask("u", &join).await, []);
    nodes[1].connect("u").await;
    let changed = UserAnswer::RoomChanged {
        connections: 2,
        failed: 1,
    };
    for request in [join, UserRequest::Leave { room }] {
        assert_eq!(
            nodes[0].ask("u", &request).await,
            std::slice::from_ref(&changed)
        );
        assert_eq!(nodes[1].asked().last(), Some(&("u".to_owned(), request)));
    }
    assert_eq!(nodes[2].asked(), [], "it holds nobody");
}

async fn the_users_that_other_nodes_hold_are_known(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let strange = "u\"{}:\n\0ä";
    nodes[0].connect("here").await;
    nodes[1].connect("there").await;
    nodes[2].connect(strange).await;
    for node in &nodes {
        node.connect("everywhere").await;
    }
    nodes[1].connect("gone").await;
    nodes[1].disconnect("gone").await;
    let asked = [
        "there",
        "nobody",
        "here",
        strange,
        "everywhere",
        "gone",
        "there",
    ];
    let online = nodes[0].broker.connected_elsewhere(&asked).await.unwrap();
    assert_eq!(online, [true, false, false, true, true, false, true]);
    assert_eq!(nodes[0].broker.connected_elsewhere(&[]).await, Ok(vec![]));
    let many: Vec<String> = (0..1_000).map(|n| format!("u{n}")).collect();
    nodes[1].connect("u7").await;
    nodes[2].connect("u999").await;
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let online = nodes[0].broker.connected_elsewhere(&many).await.unwrap();
    let online: Vec<usize> = (0..1_000).filter(|n| online[*n]).collect();
    assert_eq!(online, [7, 999]);
}

async fn the_other_nodes_with_members_of_a_room_report_their_number(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let strange = "r\"{}:\n\0ä";
    assert_eq!(nodes[0].member_counts("r").await, []);
    for room in ["r", strange] {
        nodes[0].join(room).await;
        nodes[1].join(room).await;
        assert_eq!(nodes[0].member_counts(room).await, [Some(3)]);
        assert_eq!(nodes[2].member_counts(room).await, [Some(3), Some(3)]);
    }
    nodes[1].leave("r").await;
    assert_eq!(nodes[0].member_counts("r").await, []);
}

async fn every_node_knows_which_there_are(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let known = async |node: &Node| node.broker.nodes().await.unwrap();
    until("all nodes are known", async || {
        (known(&nodes[0]).await.len() == 3).then_some(())
    })
    .await;
    let all = known(&nodes[0]).await;
    assert!(all.is_sorted(), "{all:?}");
    assert_eq!(known(&nodes[2]).await, all);
    nodes[1].broker.leave(Duration::from_secs(10)).await;
    let left = known(&nodes[0]).await;
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|node| all.contains(node)));
}

async fn a_node_that_left_is_neither_reached_nor_well(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    nodes[1].connect("u").await;
    nodes[1].join("r").await;
    nodes[1].broker.probe().await.unwrap();
    nodes[1].broker.leave(Duration::from_secs(10)).await;
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 0);
    assert_eq!(nodes[0].publish(Target::Room("r"), "x").await, 0);
    assert!(nodes[1].broker.probe().await.is_err());
    nodes[0].broker.probe().await.unwrap();
}

async fn strange_names_are_only_names(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let long = format!("{}abc", "😀".repeat(63));
    let strange = [
        "a:b",
        "a b",
        "{a}",
        "a}b{",
        "{}",
        "a\nb",
        "a\r\nDEL x\r\n",
        "*",
        "a*",
        "[a]",
        "?",
        "ä€😀",
        "\0",
        "server",
        "server_alive:n0",
        &long,
    ];
    for name in strange {
        nodes[1].connect(name).await;
        nodes[1].join(name).await;
    }
    for name in strange {
        assert_eq!(
            nodes[0].publish(Target::User(name), name).await,
            1,
            "{name:?}"
        );
        assert_eq!(
            nodes[0].publish(Target::Room(name), name).await,
            1,
            "{name:?}"
        );
        nodes[1].expect(&format!("user {name}"), &[name]).await;
        nodes[1].expect(&format!("room {name}"), &[name]).await;
    }
    for nobody in ["a", "b", "user_servers:a", "a:b:c", "[b]", ""] {
        assert_eq!(
            nodes[0].publish(Target::User(nobody), "x").await,
            0,
            "{nobody:?}"
        );
    }
}

async fn concurrent_changes_end_at_the_truth(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let nodes = Arc::new(nodes);
    let flickers = (0..8).map(|task| {
        let nodes = nodes.clone();
        tokio::task::spawn_blocking(move || {
            for round in 0..500 {
                let mut users = nodes[1].recorder.users.lock().unwrap();
                if (task + round) % 2 == 0 {
                    users.insert("u".to_owned());
                } else {
                    users.remove("u");
                }
                drop(users);
                nodes[1].broker.user_changed("u");
            }
        })
    });
    join_all(flickers).await;
    nodes[1].broker.user_settled("u").await;
    let holds = nodes[1].recorder.holds_user("u");
    assert_eq!(
        nodes[0].publish(Target::User("u"), "x").await,
        usize::from(holds)
    );
}

macro_rules! passes_the_contract {
    ($broker:ident: $make:expr; $($requirement:ident)*) => {
        mod $broker {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $requirement() {
                    super::$requirement($make).await;
                }
            )*
        }
    };
    ($broker:ident: $make:expr) => {
        passes_the_contract! { $broker: $make;
            a_user_is_reached_on_other_nodes_only
            a_message_for_an_absent_user_or_an_empty_room_reaches_nobody
            a_user_who_connects_is_reachable_at_once
            a_room_is_published_once_for_each_node
            everyone_is_every_other_node
            frames_to_one_target_keep_their_order
            a_user_who_moves_gets_every_published_message_once_and_in_order
            a_user_with_two_devices_gets_nothing_twice_on_either_while_one_moves
            a_node_that_leaves_loses_nothing_that_was_published
            the_other_nodes_that_hold_a_user_are_asked_and_answer
            a_node_lists_connections_and_closes_one_for_another
            a_node_changes_the_rooms_of_a_user_for_another
            the_users_that_other_nodes_hold_are_known
            the_other_nodes_with_members_of_a_room_report_their_number
            a_frame_is_given_to_the_connection_that_it_is_posted_to_on_any_node
            every_node_knows_which_there_are
            a_node_that_left_is_neither_reached_nor_well
            strange_names_are_only_names
            concurrent_changes_end_at_the_truth
            messages_are_numbered_from_one_and_reach_all_nodes_that_hold_the_room
            concurrent_senders_get_consecutive_numbers_that_are_the_same_everywhere
            a_query_gets_the_newest_messages_between_its_bounds
            concurrent_readers_each_get_their_page
            only_as_many_messages_are_kept_as_the_history_has_room_for
            a_history_that_does_not_exist_is_created_and_keeps_its_epoch
            looking_for_a_history_that_does_not_exist_creates_none
            a_history_that_is_reset_begins_another_epoch
            messages_of_a_users_history_reach_all_nodes_that_hold_the_user
            positions_come_in_the_order_of_the_rooms
            histories_of_rooms_with_any_names_are_independent
            a_revocation_is_enforced_once_by_every_node_until_its_end
            revocations_of_different_names_are_different
            the_members_of_a_room_are_the_users_of_all_nodes
            all_nodes_learn_that_members_changed
            users_on_other_nodes_are_counted
            local_and_remote_rooms_and_members_are_distinguished
            a_node_that_leaves_takes_its_members_along
            members_of_rooms_and_users_with_strange_names_are_distinguished
            one_of_many_that_want_to_handle_a_message_does
            an_answer_is_repeated_by_all_nodes_until_it_is_forgotten
            a_message_that_was_not_handled_can_be_claimed_again
            messages_with_the_same_key_and_other_content_are_noticed
        }
    };
}

passes_the_contract!(memory: super::memory_cluster);
passes_the_contract!(redis: super::redis_server);
passes_the_contract!(cluster_of_redis: super::redis_cluster);

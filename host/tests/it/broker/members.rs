//! Members of rooms with presence.

use std::time::Duration;

use super::nodes::{Cluster, Node, member};
use crate::redis::until;

pub(super) async fn the_members_of_a_room_are_the_users_of_all_nodes(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    assert_eq!(nodes[0].members("r").await, []);
    nodes[0].set_member("r", "bob", 1).await;
    nodes[1].set_member("r", "ann", 2).await;
    nodes[2].set_member("r", "ann", 3).await;
    nodes[2].set_member("other", "eve", 1).await;
    for node in &nodes {
        let expected = [member("ann", 5), member("bob", 1)];
        assert_eq!(node.members("r").await, expected);
        assert_eq!(node.members("other").await, [member("eve", 1)]);
    }
    nodes[1].set_member("r", "ann", 1).await;
    nodes[0].set_member("r", "bob", 0).await;
    for node in &nodes {
        assert_eq!(node.members("r").await, [member("ann", 4)]);
    }
}

pub(super) async fn all_nodes_learn_that_members_changed(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    for connections in [1, 2, 0] {
        nodes[1].set_member("r", "ann", connections).await;
        for node in &nodes {
            node.until_members_changed("r").await;
        }
    }
}

pub(super) async fn users_on_other_nodes_are_counted(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let count = async |node: &Node, user: &str| {
        let elsewhere = node.broker.members_elsewhere("r", user, 0);
        let elsewhere = elsewhere.await.unwrap();
        assert!(elsewhere.is_exact);
        (elsewhere.users, elsewhere.has_user)
    };
    assert_eq!(count(&nodes[0], "ann").await, (0, false));
    nodes[0].set_member("r", "ann", 1).await;
    nodes[1].set_member("r", "ann", 1).await;
    nodes[1].set_member("r", "bob", 2).await;
    nodes[2].set_member("r", "bob", 1).await;
    nodes[2].set_member("r", "eve", 1).await;
    assert_eq!(count(&nodes[0], "ann").await, (2, false), "here too");
    assert_eq!(count(&nodes[0], "bob").await, (2, true));
    assert_eq!(count(&nodes[0], "new").await, (2, false));
    assert_eq!(count(&nodes[1], "eve").await, (1, true));
    // A rough count is enough if there is much room.
    let rough = nodes[0].broker.members_elsewhere("r", "new", 100).await;
    assert!(rough.unwrap().users >= 2);
}

pub(super) async fn local_and_remote_rooms_and_members_are_distinguished(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    nodes[0].join("here").await;
    nodes[1].join("there").await;
    nodes[2].join("there").await;
    nodes[2].join("left").await;
    nodes[2].leave("left").await;
    let rooms = ["here", "there", "left", "never", "there"];
    let occupied = nodes[0].broker.occupied_elsewhere(&rooms).await;
    assert_eq!(occupied, Ok(vec![false, true, false, false, true]));
    assert_eq!(nodes[0].broker.occupied_elsewhere(&[]).await, Ok(vec![]));
    let strange = "a:b\"{}\n\0ä";
    nodes[0].set_member("r", "here", 1).await;
    nodes[1].set_member("r", strange, 1).await;
    nodes[2].set_member("r", "left", 1).await;
    nodes[2].set_member("r", "left", 0).await;
    let members = [
        ("r", "here"),
        ("r", strange),
        ("r", "left"),
        ("other", strange),
    ];
    until("the list of nodes is complete", async || {
        let present = nodes[0].broker.present_elsewhere(&members).await;
        (present == Ok(vec![false, true, false, false])).then_some(())
    })
    .await;
}

pub(super) async fn a_node_that_leaves_takes_its_members_along(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    nodes[0].set_member("r", "ann", 1).await;
    nodes[1].set_member("r", "bob", 1).await;
    nodes[0].until_members_changed("r").await;
    let checks = nodes[0].member_checks();
    nodes[1].broker.leave(Duration::from_secs(10)).await;
    assert_eq!(nodes[0].members("r").await, [member("ann", 1)]);
    until("the other node knows that something changed", async || {
        let changed = nodes[0].has_changed_members("r");
        (changed || nodes[0].member_checks() > checks).then_some(())
    })
    .await;
}

pub(super) async fn members_of_rooms_and_users_with_strange_names_are_distinguished(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let long = "😀".repeat(63);
    let strange = [
        "a:b",
        ":",
        "{a}",
        "}{",
        "a\r\nDEL x",
        "*",
        "\0",
        "n1:ann",
        &long,
    ];
    for room in strange {
        for user in strange {
            nodes[1].set_member(room, user, 1).await;
        }
    }
    let mut sorted = strange;
    sorted.sort_unstable();
    let expected = sorted.map(|user| member(user, 1));
    for room in strange {
        assert_eq!(nodes[0].members(room).await, expected, "{room:?}");
    }
    assert_eq!(nodes[0].members("a").await, []);
}

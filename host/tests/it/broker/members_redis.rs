//! Members of rooms in Redis: the format, servers that died, lost data, and the costs.

use std::sync::Arc;

use futures_util::future::join_all;

use super::nodes::{member, redis_nodes};
use crate::redis::{Server, until};

const KEY: &str = "room_members:r";

/// The value of a member with one connection.
const VALUE: &str = r#"{"connections":1,"since":1700000000000,"info":{"name":"Ann"}}"#;

async fn fields(server: &Server) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = server.command(&["HGETALL", KEY]).await;
    fields.sort();
    fields
}

#[tokio::test]
async fn a_member_is_a_field_of_its_server_until_it_leaves() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    nodes[0].set_member("r", "ann", 1).await;
    nodes[1].set_member("r", "a:b", 1).await;
    let field = |name: &str| (name.to_owned(), VALUE.to_owned());
    assert_eq!(fields(&server).await, [field("n0:ann"), field("n1:a:b")]);
    nodes[0].set_member("r", "ann", 0).await;
    nodes[1].set_member("r", "a:b", 0).await;
    let keys: Vec<String> = server.command(&["KEYS", "room_members:*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn members_of_dead_servers_do_not_count_and_are_removed() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    nodes[0].set_member("r", "ann", 1).await;
    for user in 0..300 {
        let field = format!("dead-1:user{user}");
        server.command::<u64>(&["HSET", KEY, &field, VALUE]).await;
    }
    assert_eq!(nodes[0].members("r").await, [member("ann", 1)]);
    assert_eq!(fields(&server).await.len(), 1);
}

#[tokio::test]
async fn malformed_fields_are_ignored() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    nodes[1].set_member("r", "ann", 1).await;
    for (name, value) in [
        ("n1", VALUE),
        ("n1:", VALUE),
        ("n1:bob", "{"),
        ("n1:eve", r#"{"connections":0,"since":1}"#),
    ] {
        server.command::<u64>(&["HSET", KEY, name, value]).await;
    }
    assert_eq!(nodes[0].members("r").await, [member("ann", 1)]);
}

#[tokio::test]
async fn a_server_with_members_that_dies_is_noticed() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let lease = ["SET", "server_alive:ghost", "4", "PX", "3000"];
    server.command::<()>(&lease).await;
    server
        .command::<u64>(&["HSET", KEY, "ghost:ann", VALUE])
        .await;
    assert_eq!(nodes[0].members("r").await, [member("ann", 1)]);
    nodes[0].broker.member_node_lost().await;
    let leases: Vec<String> = server.command(&["KEYS", "server_alive:ghost"]).await;
    assert!(leases.is_empty(), "not before its lease ends");
    assert_eq!(nodes[0].members("r").await, []);
    assert!(fields(&server).await.is_empty());
}

#[tokio::test]
async fn members_that_redis_lost_are_written_again_and_other_nodes_learn_it() {
    let mut server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    for user in 0..300 {
        nodes[1].set_member("r", &format!("user{user:03}"), 1).await;
    }
    nodes[0].until_members_changed("r").await;
    server.restart_empty().await;
    until("all are written again", async || {
        (fields(&server).await.len() == 300).then_some(())
    })
    .await;
    nodes[0].until_members_changed("r").await;
    until("the other node sees them", async || {
        let members = nodes[0].broker.members("r").await;
        members
            .is_ok_and(|members| members.len() == 300)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn members_that_stay_cost_nothing_when_routes_are_renewed() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    nodes[0].join("r").await;
    for user in 0..100 {
        nodes[0].set_member("r", &format!("user{user}"), 1).await;
    }
    // Everything is written once more soon after the link was made.
    until_renewed(&server).await;
    for user in 0..100 {
        let user = format!("user{user}");
        nodes[0].broker.member_settled("r", &user).await;
    }
    server.reset_commandstats().await;
    until_renewed(&server).await;
    let stats = server.commandstats().await;
    assert_eq!((stats.get("hset"), stats.get("hdel")), (None, None));
}

/// Waits until the node writes the route of the room again.
async fn until_renewed(server: &Server) {
    const ROUTE: &str = "room_servers:r";
    server.command::<u64>(&["DEL", ROUTE]).await;
    until("the route is written again", async || {
        let servers: Vec<String> = server.command(&["SMEMBERS", ROUTE]).await;
        (servers.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nodes_with_much_room_left_do_not_read_all_members() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    for user in 0..20 {
        nodes[user % 2]
            .set_member("r", &format!("user{user}"), 1)
            .await;
    }
    server.reset_commandstats().await;
    let elsewhere = nodes[0].broker.members_elsewhere("r", "new", 11).await;
    assert_eq!(elsewhere.unwrap().users, 10);
    let stats = server.commandstats().await;
    assert_eq!((stats.get("hlen"), stats.get("hgetall")), (Some(&1), None));
}

#[tokio::test]
async fn readers_that_come_while_redis_is_slow_share_their_reads() {
    let mut server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    nodes[1].set_member("r", "ann", 1).await;
    server.reset_commandstats().await;
    server.stop();
    let reads = (0..30).map(async |_| {
        assert_eq!(nodes[0].members("r").await, [member("ann", 1)]);
    });
    // All of them have asked when Redis continues.
    futures_util::future::join(join_all(reads), async { server.cont() }).await;
    let reads = server.commandstats().await["hgetall"];
    assert!((1..=2).contains(&reads), "{reads}");
}

//! Listing connections, and closing one through the admin API.

use serde_json::{Value, json};

use crate::{
    admin::{WITH_KEY, admin, on_redis},
    harness::{Endpoint, Node},
    redis::Server,
};

async fn list(node: &Endpoint, query: &str) -> Value {
    let answer = admin(node, "GET", &format!("/admin/connections{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn ids(listed: &Value) -> Vec<String> {
    let connections = listed["connections"].as_array().expect("a list");
    let ids = connections
        .iter()
        .map(|connection| connection["id"].as_str());
    ids.map(|id| id.expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn connections_are_listed_by_age_and_by_user_and_up_to_a_limit() {
    let node = Node::start(WITH_KEY).await;
    assert_eq!(
        list(&node, "").await,
        json!({"connections": [], "total": 0})
    );
    let mut ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
    let welcome = ann.json().await;
    let mut bob = node.reachable("b%2Fob").await;
    bob.send(r#"{"type":"join","room":"lobby","id":"1"}"#).await;
    bob.json().await;
    let all = list(&node, "").await;
    assert_eq!(all["total"], 2);
    let connections = all["connections"].as_array().expect("a list");
    let times = connections.iter().map(|one| one["connected_at"].as_str());
    assert!(times.is_sorted(), "{all}");
    // Both may have connected in the same millisecond.
    let of = |user: &str| connections.iter().find(|one| one["user"] == user);
    let (first, second) = (of("ann").expect("ann"), of("b/ob").expect("b/ob"));
    assert_eq!(first["id"], welcome["payload"]["connectionId"]);
    assert_eq!(first["node"], welcome["payload"]["nodeId"]);
    assert_eq!(
        (&first["user"], &first["protocol"], &first["rooms"]),
        (&json!("ann"), &json!("signalbox.v1"), &json!(0))
    );
    assert_eq!(
        (&second["user"], &second["protocol"], &second["rooms"]),
        (&json!("b/ob"), &Value::Null, &json!(1))
    );
    let of_bob = list(&node, "?user=b%2Fob").await;
    assert_eq!(of_bob["connections"], json!([second]));
    let limited = list(&node, "?limit=1").await;
    assert_eq!((ids(&limited).len(), &limited["total"]), (1, &json!(2)));
    assert_eq!(list(&node, "?user=nobody").await["total"], 0);
}

#[tokio::test]
async fn one_connection_is_closed_and_no_other() {
    let node = Node::start(WITH_KEY).await;
    let mut phone = node.reachable("ann").await;
    let id = ids(&list(&node, "").await).remove(0);
    let mut laptop = node.reachable("ann").await;
    let path = format!("/admin/connections/{id}");
    let done = admin(&node, "DELETE", &path).await;
    assert_eq!((done.status, &done.body["connection"]), (200, &json!(id)));
    let expected = (4501, "disconnected by an operator".to_owned());
    assert_eq!(phone.closed_with_reason().await, expected);
    laptop.expect_silence().await;
    for gone in [
        path.as_str(),
        "/admin/connections/x",
        "/admin/connections/x?user=ann",
    ] {
        let answer = admin(&node, "DELETE", gone).await;
        assert_eq!(
            (answer.status, answer.error()),
            (404, "unknown_connection"),
            "{gone}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_connections_are_found_and_closed_on_other_nodes() {
    let redis = Server::start().await;
    let (one, other) = (on_redis(&redis).await, on_redis(&redis).await);
    let mut here = one.reachable("ann").await;
    let mut there = other.reachable("ann").await;
    let listed = list(&one, "?user=ann").await;
    assert_eq!(
        (&listed["total"], &listed["unanswered"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(
        list(&one, "").await["total"],
        1,
        "without a user it is this node alone"
    );
    let other_node = admin(&other, "GET", "/admin/nodes").await.body["this"]["id"].clone();
    let connections = listed["connections"].as_array().expect("a list");
    let first_there = connections.iter().find(|one| one["node"] == other_node);
    let id = first_there.expect("one is there")["id"]
        .as_str()
        .expect("a name");

    let path = format!("/admin/connections/{id}");
    assert_eq!(
        admin(&one, "DELETE", &path).await.error(),
        "unknown_connection"
    );
    let done = admin(&one, "DELETE", &format!("{path}?user=ann")).await;
    assert_eq!(
        (done.status, &done.body["node"]),
        (200, &other_node),
        "{}",
        done.body
    );
    assert_eq!(there.closed().await, 4501);
    here.expect_silence().await;

    // A node that is alive but does not answer is named in `unanswered`.
    redis
        .command::<()>(&["SADD", "user_servers:ann", "ghost-1"])
        .await;
    redis
        .command::<()>(&["SET", "server_alive:ghost-1", "1"])
        .await;
    let listed = list(&one, "?user=ann").await;
    assert_eq!(
        (&listed["total"], &listed["unanswered"]),
        (&json!(1), &json!(["ghost-1"]))
    );
    let done = admin(&one, "DELETE", "/admin/connections/x?user=ann").await;
    assert_eq!((done.status, done.error()), (503, "unavailable"));
}

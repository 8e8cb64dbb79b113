//! Messages that are handled once, on several nodes.

use futures_util::future::join;
use serde_json::{Value, json};

use crate::{
    once::{API, KEY, post, repeated, to_bob},
    redis::{Server, until},
    redis_nodes::{Nodes, Peer},
};

/// The `ack` or `error` for `message`.
async fn answer(peer: &mut Peer, message: &Value) -> Value {
    peer.send_json(message).await;
    loop {
        let frame = peer.delivery().await;
        if frame["payload"]["id"] == message["id"] {
            return frame;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_on_another_node_acts_no_more() {
    let server = Server::start().await;
    let Nodes { nodes } = Nodes::start(3, &server.url(), "").await;
    let mut bob = Peer::connect(&nodes[2], "bob").await;
    let message = to_bob("1", json!({"n": "ä"}));
    let mut ann = Peer::connect(&nodes[0], "ann").await;
    let first = answer(&mut ann, &message).await;
    assert_eq!(first["payload"]["status"], "delivered", "{first}");
    ann.close().await;
    for node in [&nodes[1], &nodes[0], &nodes[2]] {
        let mut ann = Peer::connect(node, "ann").await;
        assert_eq!(answer(&mut ann, &message).await, repeated(first.clone()));
        let other = answer(&mut ann, &to_bob("1", json!(2))).await;
        assert_eq!(other["payload"]["code"], "once_mismatch", "{other}");
        ann.close().await;
    }
    let mut eve = Peer::connect(&nodes[0], "eve").await;
    answer(&mut eve, &to_bob("1", json!("last"))).await;
    assert_eq!(bob.delivery().await["payload"]["n"], "ä");
    assert_eq!(bob.delivery().await["payload"], "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repetitions_on_two_nodes_at_the_same_time_act_once() {
    let server = Server::start().await;
    let Nodes { nodes } = Nodes::start(2, &server.url(), API).await;
    let mut bob = Peer::connect(&nodes[0], "bob").await;
    let mut one = Peer::connect(&nodes[0], "ann").await;
    let mut two = Peer::connect(&nodes[1], "ann").await;
    let is_fair = |answer: &Value| {
        let payload = &answer["payload"];
        payload["status"] == "delivered" || payload["code"] == "in_progress"
    };
    for round in 0..50 {
        let message = to_bob(&round.to_string(), json!(round));
        let answers = join(answer(&mut one, &message), answer(&mut two, &message)).await;
        assert!(is_fair(&answers.0) && is_fair(&answers.1), "{answers:?}");
        assert!(answers.0["type"] == "ack" || answers.1["type"] == "ack");
        assert_eq!(bob.delivery().await["payload"], round);
    }
    for round in 50..80 {
        let message = json!({"type": "x", "payload": round, "receiverId": "bob"});
        let name = round.to_string();
        let call = |node| post(node, "/api/messages", KEY, &name, &message);
        let (first, second) = join(call(&nodes[0]), call(&nodes[1])).await;
        let statuses = [first.status, second.status];
        assert!(statuses.contains(&200), "{statuses:?}");
        for answer in [first, second] {
            assert!(
                answer.status == 200
                    || answer.status == 409 && answer.error_code() == "in_progress",
                "{answer:?}"
            );
        }
        assert_eq!(bob.delivery().await["payload"], round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_of_a_node_that_died_ends_and_the_message_is_handled() {
    let server = Server::start().await;
    let Nodes { nodes } = Nodes::start(1, &server.url(), "").await;
    let mut ann = Peer::connect(&nodes[0], "ann").await;
    let message = to_bob("1", json!(1));
    answer(&mut ann, &message).await;
    let key = "once:user:3:ann:1";
    let kept: String = server.command(&["GET", key]).await;
    let claim = format!("{} dead-1", &kept[..32]);
    let _: () = server.command(&["SET", key, &claim]).await;
    let waiting = answer(&mut ann, &message).await;
    assert_eq!(waiting["payload"]["code"], "in_progress", "{waiting}");
    assert_eq!(waiting["payload"]["retryable"], true);
    let _: u64 = server.command(&["PEXPIRE", key, "100"]).await;
    until("the claim has ended", async || {
        let answer = answer(&mut ann, &message).await;
        (answer["payload"]["status"] == "offline").then_some(())
    })
    .await;
    let again = answer(&mut ann, &message).await;
    assert_eq!(again["payload"]["duplicate"], true, "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_message_that_may_be_a_repetition_is_refused() {
    let mut server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), API).await;
    let node = &cluster.nodes[0];
    let mut bob = Peer::connect(node, "bob").await;
    let mut ann = Peer::connect(node, "ann").await;
    server.kill9();
    drop(cluster.until_unready().await);
    // Others are still delivered on this node.
    let mut plain = to_bob("0", json!(0));
    plain["once"] = json!(false);
    assert_eq!(
        answer(&mut ann, &plain).await["payload"]["status"],
        "delivered"
    );
    let message = to_bob("1", json!(1));
    let refused = answer(&mut ann, &message).await;
    assert_eq!(refused["payload"]["code"], "unavailable", "{refused}");
    assert_eq!(refused["payload"]["retryable"], true);
    let body = json!({"type": "x", "payload": 2, "receiverId": "bob"});
    let call = post(node, "/api/messages", KEY, "k", &body).await;
    assert_eq!(
        (call.status, call.error_code().as_str()),
        (503, "unavailable")
    );
    let unavailable = "wss_once_total{outcome=\"unavailable\"} ";
    assert_eq!(node.metric(unavailable).await, Some(2.0));
    server.restart_empty().await;
    cluster.until_ready().await;
    until("the message is handled", async || {
        let answer = answer(&mut ann, &message).await;
        (answer["type"] == "ack").then_some(())
    })
    .await;
    assert_eq!(bob.delivery().await["payload"], 0);
    assert_eq!(bob.delivery().await["payload"], 1);
}

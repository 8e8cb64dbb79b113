//! Message order through Redis, for users who move between nodes.

use std::sync::Arc;

use futures_util::StreamExt as _;
use signalbox::broker::Target;

use super::nodes::{frame, redis_nodes};
use crate::redis::{Server, until};

#[tokio::test]
async fn messages_follow_a_user_back_to_the_server_that_passed_them_on_in_order() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 3, &Arc::default()).await;
    let [sender, home, away] = nodes.as_slice() else {
        panic!("three nodes")
    };
    let route = async || -> Vec<String> { server.command(&["SMEMBERS", "user_servers:u"]).await };
    let until_no_route = async || {
        until("the server finds nobody", async || {
            route().await.is_empty().then_some(())
        })
        .await;
    };
    away.connect("u").await;
    let away_id = route().await.remove(0);
    away.disconnect("u").await;
    home.connect("u").await;
    let mut sent = Vec::new();
    for round in 0..10 {
        sent.extend(["before", "away", "back"].map(|when| format!("{when} {round}")));
        let [before, late, back] = sent.last_chunk().expect("three");
        assert_eq!(sender.publish(Target::User("u"), before).await, 1);
        home.expect("user u", &sent[..sent.len() - 2]).await;
        // The user leaves, and no server has noticed.
        home.recorder.users.lock().unwrap().remove("u");
        assert_eq!(sender.publish(Target::User("u"), late).await, 1);
        until_no_route().await;
        // The user connects elsewhere, and leaves again.
        server
            .command::<()>(&["SADD", "user_servers:u", &away_id])
            .await;
        until_no_route().await;
        // The user comes back, and the next message races with the one that is forwarded.
        home.recorder.users.lock().unwrap().insert("u".to_owned());
        home.broker.user_changed("u");
        until("the user is found", async || {
            (sender.publish(Target::User("u"), back).await == 1).then_some(())
        })
        .await;
        home.expect("user u", &sent).await;
    }
}

#[tokio::test]
async fn a_message_waits_for_the_one_before_it_that_was_forwarded_wherever_the_user_is_by_now() {
    for comes_back in [true, false] {
        let server = Server::start().await;
        let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
        let [first, last] = nodes.as_slice() else {
            panic!("two nodes")
        };
        let now_at = if comes_back { first } else { last };
        first.connect("u").await;
        first.disconnect("u").await;
        first.connect("marker").await;
        // A server between the two that withholds the messages it receives.
        let client = ::redis::Client::open(server.url()).expect("an address");
        let mut between = client.get_async_pubsub().await.expect("a connection");
        between.subscribe("server:b-1").await.expect("it listens");
        let _: () = server.command(&["SET", "server_alive:b-1", "3"]).await;
        let _: () = server.command(&["SADD", "user_servers:u", "b-1"]).await;
        let publish = async |node: &str, text: &str| {
            let words = ["PUBLISH", &format!("server:{node}"), text];
            assert_eq!(server.command::<u64>(&words).await, 1);
        };
        let to = |user, text| frame(Target::User(user), text);
        publish("n0", to("u", "one").as_str()).await;
        let one = between.on_message().next().await.expect("a message");
        let one: String = one.get_payload().expect("a text");
        assert!(one.contains("signalbox.to") && one.contains("one"), "{one}");
        // The user moves on, and the first server receives one more message for them.
        let _: () = server.command(&["SREM", "user_servers:u", "b-1"]).await;
        now_at.connect("u").await;
        publish("n0", to("u", "two").as_str()).await;
        publish("n0", to("marker", "x").as_str()).await;
        first.expect("user marker", &["x"]).await;
        assert_eq!(now_at.got("user u"), Vec::<String>::new());
        let now_at_id = if comes_back { "n0" } else { "n1" };
        publish(now_at_id, &one).await;
        now_at.expect("user u", &["one", "two"]).await;
    }
}

//! The route of a user who moves lists the server that they have left for a moment longer. Such a server neither gets copies
//! nor is overtaken. The tests play that server.

use ::redis::aio::PubSub;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::{
    redis::{Server, until},
    redis_nodes::{Nodes, Outcome, Peer, by_sender},
};

/// Bob's route has changed.
const NOTICE: &str = r#"{"type":"signalbox.routes","users":["bob"],"rooms":[]}"#;

/// A message from a worker to `USER`.
const MARKER: &str =
    r#"{"type":"test","payload":0,"receiverID":"USER","senderId":"w","timestamp":"t"}"#;

/// A server that is on Bob's route.
struct Played<'s> {
    id: &'static str,
    server: &'s Server,
    texts: PubSub,
}

impl<'s> Played<'s> {
    /// A server whose lease has the value `lease`.
    async fn start(server: &'s Server, id: &'static str, lease: &str) -> Self {
        let client = ::redis::Client::open(server.url()).expect("an address");
        let mut texts = client.get_async_pubsub().await.expect("a connection");
        let subscribed = texts.subscribe(format!("server:{id}")).await;
        subscribed.expect("it subscribes");
        let lease_key = format!("server_alive:{id}");
        server.command::<()>(&["SET", &lease_key, lease]).await;
        server
            .command::<()>(&["SADD", "user_servers:bob", id])
            .await;
        Self { id, server, texts }
    }

    /// The next text on its channel.
    async fn next(&mut self) -> String {
        let text = self.texts.on_message().next().await.expect("a text");
        text.get_payload().expect("UTF-8")
    }

    /// The next text, which is a question of this type about Bob.
    async fn question(&mut self, r#type: &str) -> Value {
        let text = self.next().await;
        let question: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(question["type"], r#type, "{text}");
        assert_eq!(question["user"], "bob", "{text}");
        question
    }

    /// The number in the next text, which is a message, and the servers in its mark.
    async fn message(&mut self) -> (u64, Vec<String>) {
        let text = self.next().await;
        let (mark, message) = text.split_once('\n').expect("a mark");
        let mark: Value = serde_json::from_str(mark).expect("the mark is JSON");
        assert_eq!(mark["type"], "signalbox.to", "{text}");
        let words = mark["payload"].as_str().expect("a text").split(' ');
        let servers = words.skip(2).take_while(|word| *word != "|");
        let message: Value = serde_json::from_str(message).expect("the message is JSON");
        let number = message["payload"].as_u64().expect("a number");
        (number, servers.map(str::to_owned).collect())
    }

    /// Answers that Bob is not here.
    async fn say_gone(&self, question: &Value) {
        self.answer(question, r#","gone":true"#).await;
    }

    /// Answers that Bob is here.
    async fn say_here(&self, question: &Value) {
        self.answer(question, "").await;
    }

    async fn answer(&self, question: &Value, more: &str) {
        let id = &question["id"];
        let answer = format!(r#"{{"type":"signalbox.fence_passed","id":{id}{more}}}"#);
        let from = question["from"].as_str().expect("a server");
        self.publish(from, &answer).await;
    }

    async fn publish(&self, to: &str, text: &str) {
        let channel = format!("server:{to}");
        let heard: u64 = self.server.command(&["PUBLISH", &channel, text]).await;
        assert_eq!(heard, 1, "{to} listens");
    }

    /// The other server on Bob's route.
    async fn other(&self) -> String {
        let servers: Vec<String> = self.server.command(&["SMEMBERS", "user_servers:bob"]).await;
        let others = servers.into_iter().filter(|server| server != self.id);
        let others: Vec<String> = others.collect();
        assert_eq!(others.len(), 1, "{others:?}");
        others[0].clone()
    }
}

fn message(n: u64) -> Value {
    json!({"type": "test", "payload": n, "receiverID": "bob", "senderId": "ann", "timestamp": "t"})
}

/// Connects Bob to the second node. The first one, with Ann, learns of it.
async fn connect_bob(cluster: &Nodes, ann: &mut Peer) -> Peer {
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    // Published after the notice, on the same link.
    bob.send("ann", 0).await;
    assert_eq!(ann.delivery().await["senderId"], "bob");
    bob
}

async fn numbers(bob: &mut Peer, count: usize) -> Vec<u64> {
    let received = bob.take(count).await;
    by_sender(&received).remove("ann").unwrap_or_default()
}

#[tokio::test]
async fn a_message_to_the_new_server_waits_for_those_at_the_old_one_that_is_still_on_the_route() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut old = Played::start(&server, "old-1", "6").await;
    ann.send("bob", 1).await;
    assert_eq!(old.message().await, (1, Vec::new()));
    let mut bob = connect_bob(&cluster, &mut ann).await;
    ann.send("bob", 2).await;
    let question = old.question("signalbox.fence").await;
    let new = old.other().await;
    let mark = format!(r#"{{"type":"signalbox.to","payload":"1 1 {new} | old-1 7"}}"#);
    old.publish(&new, &format!("{mark}\n{}", message(1))).await;
    let arrived: Value = serde_json::from_str(&old.next().await).expect("JSON");
    assert_eq!(arrived["type"], "signalbox.fence_arrived", "{arrived}");
    // A server with this lease does not say whether Bob is there.
    old.say_here(&question).await;
    let (number, mut servers) = old.message().await;
    let mut both = vec![new, "old-1".to_owned()];
    servers.sort();
    both.sort();
    assert_eq!((number, servers), (2, both));
    assert_eq!(numbers(&mut bob, 2).await, [1, 2]);
}

#[tokio::test]
async fn a_server_that_a_user_has_left_gets_no_copy_although_it_is_on_the_route() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = connect_bob(&cluster, &mut ann).await;
    let mut old = Played::start(&server, "old-1", "7").await;
    let route = "{\"type\":\"signalbox.routes\",\"users\":[\"bob\"],\"rooms\":[]}";
    let told: u64 = server
        .command(&["PUBLISH", "signalbox:routes", route])
        .await;
    assert_eq!(told, 2);
    // After the notice, on the same link.
    bob.send("ann", 0).await;
    ann.delivery().await;
    ann.send("bob", 1).await;
    let question = old.question("signalbox.fence_holds").await;
    old.say_gone(&question).await;
    assert_eq!(numbers(&mut bob, 1).await, [1]);
    // Not reused: Bob may connect there without a notice.
    ann.send("bob", 2).await;
    let question = old.question("signalbox.fence").await;
    old.say_here(&question).await;
    let (number, servers) = old.message().await;
    assert_eq!((number, servers.len()), (2, 2), "{servers:?}");
    assert_eq!(numbers(&mut bob, 1).await, [2]);
    // Nothing changed since.
    ann.send("bob", 3).await;
    assert_eq!(old.message().await.0, 3);
    assert_eq!(numbers(&mut bob, 1).await, [3]);
}

#[tokio::test]
async fn a_message_for_a_user_on_the_node_of_the_sender_is_not_copied_to_a_server_that_they_left() {
    let server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[0], "bob").await;
    let mut old = Played::start(&server, "old-1", "7").await;
    ann.send("bob", 1).await;
    let question = old.question("signalbox.fence_holds").await;
    old.say_gone(&question).await;
    ann.send("bob", 2).await;
    // Before the delivery here, and again for the copy.
    let question = old.question("signalbox.fence").await;
    old.say_gone(&question).await;
    let question = old.question("signalbox.fence_holds").await;
    old.say_here(&question).await;
    let own = old.other().await;
    assert_eq!(old.message().await, (2, vec![own]));
    assert_eq!(numbers(&mut bob, 2).await, [1, 2]);
}

#[tokio::test]
async fn a_message_delivered_locally_is_not_forwarded_if_the_user_moves_during_the_route_lookup() {
    let server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[0], "bob").await;
    assert_eq!(ann.ask("bob", 1).await, Outcome::Delivered);
    let mut new = Played::start(&server, "new-1", "7").await;
    let own = new.other().await;
    server
        .command::<u64>(&["PUBLISH", "signalbox:routes", NOTICE])
        .await;
    // After the notice, on the same link.
    new.publish(&own, &MARKER.replace("USER", "ann")).await;
    assert_eq!(ann.delivery().await["senderId"], "w");
    ann.send("bob", 2).await;
    let question = new.question("signalbox.fence_holds").await;
    assert_eq!(numbers(&mut bob, 2).await, [1, 2]);
    bob.close().await;
    until("he has left", async || {
        let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
        (!servers.contains(&own)).then_some(())
    })
    .await;
    new.say_here(&question).await;
    ann.send("bob", 3).await;
    assert_eq!(new.message().await.0, 3, "he has the message before it");
}

#[tokio::test]
async fn a_message_is_not_forwarded_to_a_server_that_the_user_has_left_too() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut bob = Peer::connect(&cluster.nodes[0], "bob").await;
    let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
    let [first] = servers.try_into().expect("one server");
    bob.close().await;
    bob = Peer::connect(&cluster.nodes[1], "bob").await;
    until("the first slot is released", async || {
        let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
        (!servers.contains(&first)).then_some(())
    })
    .await;
    let mut old = Played::start(&server, "old-1", "7").await;
    old.publish(&first, &message(1).to_string()).await;
    let question = old.question("signalbox.fence_holds").await;
    old.say_gone(&question).await;
    assert_eq!(numbers(&mut bob, 1).await, [1]);
    old.publish(&first, &message(2).to_string()).await;
    let question = old.question("signalbox.fence_holds").await;
    old.say_here(&question).await;
    assert_eq!(old.message().await.0, 2);
    assert_eq!(numbers(&mut bob, 1).await, [2]);
}
